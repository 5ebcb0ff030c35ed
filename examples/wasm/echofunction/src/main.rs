//! Answers each message with its payload followed by the subject it came on.
//!
//! Nex runs the program once for every message: standard input is the payload,
//! the first argument is the subject, and standard output is the reply.

use std::env;
use std::io::{self, Read, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match answer() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            // Standard error goes to the workload's log, and its last line
            // into the error that the caller gets.
            eprintln!("echofunction: {err}");
            ExitCode::FAILURE
        }
    }
}

fn answer() -> io::Result<()> {
    let subject = env::args().nth(1).unwrap_or_default();
    let mut reply = Vec::new();
    io::stdin().read_to_end(&mut reply)?;
    reply.extend_from_slice(subject.as_bytes());
    io::stdout().write_all(&reply)
}
