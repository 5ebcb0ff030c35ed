// A WebAssembly function that asks host services what it is told to, and answers
// with what came of it. Built into function.wasm by
//
//   rustc --edition 2021 --target wasm32-wasi -C opt-level=s -C lto=fat -C codegen-units=1 \
//     -C panic=abort -C strip=symbols -o function.wasm function.rs
//
// The payload has lines: service, method, size of a payload of zeros or 0, how
// many arguments there are, and of each the name and the value; then the payload.
#[allow(dead_code)]
#[path = "../../../../examples/wasm/rustvisits/src/nexhost.rs"]
mod nexhost;

use std::io::{Read, Write};

fn line<'a>(rest: &mut &'a [u8]) -> &'a str {
    let end = rest.iter().position(|b| *b == b'\n').unwrap();
    let text = std::str::from_utf8(&rest[..end]).unwrap();
    *rest = &rest[end + 1..];
    text
}

fn main() {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input).unwrap();
    let mut rest = &input[..];
    let (service, method) = (line(&mut rest), line(&mut rest));
    let (size, count): (usize, usize) = (line(&mut rest).parse().unwrap(), line(&mut rest).parse().unwrap());
    let args: Vec<(&str, &str)> = (0..count).map(|_| (line(&mut rest), line(&mut rest))).collect();
    let zeros = vec![0; size];
    let payload = if size > 0 { &zeros[..] } else { rest };
    let answer = match nexhost::ask(service, method, &args, &[], payload) {
        Err(error) => error.code.into_bytes(),
        Ok(answer) if answer.payload.len() > 1 << 19 => answer.payload.len().to_string().into_bytes(),
        Ok(answer) => {
            let mut all = answer.args.get("status").map_or(Vec::new(), |status| status.clone().into_bytes());
            all.extend(answer.payload);
            all
        }
    };
    std::io::stdout().write_all(&answer).unwrap();
}
