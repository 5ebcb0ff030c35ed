//! Counts in the workload's key-value bucket how often it got each payload.
//!
//! Messages that come at once may be counted as one.

mod nexhost;

use std::error::Error;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use nexhost::kv;

fn main() -> ExitCode {
    match answer() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("visits: {err}");
            ExitCode::FAILURE
        }
    }
}

fn answer() -> Result<(), Box<dyn Error>> {
    let mut name = Vec::new();
    io::stdin().read_to_end(&mut name)?;
    let mut key = String::from("visits-");
    for byte in &name {
        key += &format!("{byte:02x}"); // a key has no spaces
    }
    let visits = match kv::get(&key) {
        Ok(value) => String::from_utf8(value)?.parse::<u64>()?,
        Err(err) if err.code == "not_found" => 0, // the first
        Err(err) => return Err(format!("read the count: {err}").into()),
    } + 1;
    kv::set(&key, visits.to_string().as_bytes()).map_err(|err| format!("keep the count: {err}"))?;
    name.extend_from_slice(format!(": {visits}").as_bytes());
    Ok(io::stdout().write_all(&name)?)
}
