//! The host services of Nex for WebAssembly functions: key-value buckets, an
//! object store, messaging and HTTP.
//!
//! The node knows which function asks and opens its own connections; there is
//! nothing to configure here and nothing to close. While a call waits, the
//! program stands still; at the function's deadline Nex ends it.
//!
//! It needs the standard library only and may be copied.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fmt;

#[link(wasm_import_module = "nex")]
extern "C" {
    fn call(request: *const u8, size: usize) -> usize;
    fn answer(to: *mut u8);
}

/// The failure of a host service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// One word, as in `not_found`.
    pub code: String,
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

pub type Result<T> = std::result::Result<T, Error>;

/// An answer. Texts that are not UTF-8 have U+FFFD where they are not.
#[derive(Debug, Default)]
pub struct Answer {
    pub args: BTreeMap<String, String>,
    pub headers: Vec<(String, String)>,
    pub payload: Vec<u8>,
}

/// Asks a host service to do something. The modules below do so for the services
/// that every node knows.
pub fn ask(service: &str, method: &str, args: &[(&str, &str)], headers: &[(&str, &str)], payload: &[u8]) -> Result<Answer> {
    let mut request = Vec::with_capacity(256 + payload.len());
    push(&mut request, service);
    push(&mut request, method);
    for list in [args, headers] {
        request.extend_from_slice(&(list.len() as u32).to_le_bytes());
        for (name, value) in list {
            push(&mut request, name);
            push(&mut request, value);
        }
    }
    request.extend_from_slice(payload);
    let mut bytes = vec![0; unsafe { call(request.as_ptr(), request.len()) }];
    unsafe { answer(bytes.as_mut_ptr()) };
    read(bytes)
}

fn push(request: &mut Vec<u8>, text: &str) {
    request.extend_from_slice(&(text.len() as u32).to_le_bytes());
    request.extend_from_slice(text.as_bytes());
}

/// Takes apart what the host wrote, which is well formed.
fn read(mut bytes: Vec<u8>) -> Result<Answer> {
    let mut rest = &bytes[..];
    let code = text(&mut rest);
    let mut found = Answer::default();
    for _ in 0..number(&mut rest) {
        let name = text(&mut rest);
        found.args.insert(name, text(&mut rest));
    }
    for _ in 0..number(&mut rest) {
        let name = text(&mut rest);
        found.headers.push((name, text(&mut rest)));
    }
    if !code.is_empty() {
        return Err(Error { code, message: String::from_utf8_lossy(rest).into_owned() });
    }
    let head = bytes.len() - rest.len();
    bytes.drain(..head);
    found.payload = bytes;
    Ok(found)
}

fn number(rest: &mut &[u8]) -> usize {
    let (n, behind) = rest.split_at(4);
    *rest = behind;
    u32::from_le_bytes([n[0], n[1], n[2], n[3]]) as usize
}

fn text(rest: &mut &[u8]) -> String {
    let size = number(rest);
    let (t, behind) = rest.split_at(size);
    *rest = behind;
    String::from_utf8_lossy(t).into_owned()
}

/// The message that the function answers.
pub mod message {
    use super::{ask, Answer, Result};

    /// Its headers, and the arguments `subject`, `reply` (empty when nobody waits
    /// for an answer) and `deadline_ms` (when the function is stopped, since 1970).
    pub fn received() -> Result<Answer> {
        ask("message", "get", &[], &[], &[])
    }

    /// Sets the headers of the reply, instead of those set before.
    pub fn respond_with(headers: &[(&str, &str)]) -> Result<()> {
        ask("message", "respond", &[], headers, &[]).map(drop)
    }
}

/// The workload's key-value bucket.
pub mod kv {
    use super::{ask, Result};

    /// The value of a key. If there is none the code is `not_found`.
    pub fn get(key: &str) -> Result<Vec<u8>> {
        Ok(ask("kv", "get", &[("key", key)], &[], &[])?.payload)
    }

    /// Gives a key a value and returns the revision of the bucket that this made.
    pub fn set(key: &str, value: &[u8]) -> Result<u64> {
        let found = ask("kv", "set", &[("key", key)], &[], value)?;
        Ok(found.args.get("revision").and_then(|r| r.parse().ok()).unwrap_or(0))
    }

    /// Removes a key, if there is one.
    pub fn delete(key: &str) -> Result<()> {
        ask("kv", "delete", &[("key", key)], &[], &[]).map(drop)
    }

    /// All keys, as a JSON array of strings.
    pub fn keys() -> Result<Vec<u8>> {
        Ok(ask("kv", "keys", &[], &[], &[])?.payload)
    }
}

/// The workload's bucket of objects, which may be larger than values.
pub mod objectstore {
    use super::{ask, Result};

    /// An object. If there is none the code is `not_found`.
    pub fn get(name: &str) -> Result<Vec<u8>> {
        Ok(ask("objectstore", "get", &[("name", name)], &[], &[])?.payload)
    }

    /// Stores an object and returns its description, in JSON.
    pub fn put(name: &str, data: &[u8]) -> Result<Vec<u8>> {
        Ok(ask("objectstore", "put", &[("name", name)], &[], data)?.payload)
    }

    /// Removes an object. If there is none the code is `not_found`.
    pub fn delete(name: &str) -> Result<()> {
        ask("objectstore", "delete", &[("name", name)], &[], &[]).map(drop)
    }

    /// Descriptions of all objects, as a JSON array.
    pub fn list() -> Result<Vec<u8>> {
        Ok(ask("objectstore", "list", &[], &[], &[])?.payload)
    }
}

/// NATS messages. A time of 0 is left to the node.
pub mod messaging {
    use super::{ask, Answer, Result};

    /// Sends a message.
    pub fn publish(subject: &str, headers: &[(&str, &str)], payload: &[u8]) -> Result<()> {
        ask("messaging", "publish", &[("subject", subject)], headers, payload).map(drop)
    }

    /// Sends a message and waits for a reply.
    pub fn request(subject: &str, headers: &[(&str, &str)], payload: &[u8], timeout_ms: u32) -> Result<Answer> {
        let timeout = timeout_ms.to_string();
        let args = [("subject", subject), ("timeout_ms", &timeout)];
        ask("messaging", "request", &args[..1 + usize::from(timeout_ms > 0)], headers, payload)
    }

    /// Sends a message and returns the replies that came: up to `count`, until
    /// there was none for `quiet_ms`, or `timeout_ms` have passed. What is 0 does
    /// not count.
    pub fn request_many(subject: &str, payload: &[u8], count: u32, quiet_ms: u32, timeout_ms: u32) -> Result<Vec<Vec<u8>>> {
        let limits = [("count", count), ("quiet_ms", quiet_ms), ("timeout_ms", timeout_ms)];
        let limits = limits.map(|(name, n)| (name, n.to_string()));
        let mut args = vec![("subject", subject)];
        args.extend(limits.iter().filter(|(_, n)| n != "0").map(|(name, n)| (*name, n.as_str())));
        let found = ask("messaging", "requestMany", &args, &[], payload)?;
        let (mut rest, mut replies) = (&found.payload[..], Vec::new());
        while rest.len() >= 4 {
            let (size, behind) = rest.split_at(4);
            let size = u32::from_be_bytes([size[0], size[1], size[2], size[3]]) as usize;
            let (reply, behind) = behind.split_at(size.min(behind.len()));
            replies.push(reply.to_vec());
            rest = behind;
        }
        Ok(replies)
    }
}

/// HTTP requests.
pub mod http {
    use super::{ask, Result};

    /// What came back.
    #[derive(Debug)]
    pub struct Response {
        pub status: u16,
        /// After redirects.
        pub url: String,
        pub headers: Vec<(String, String)>,
        pub body: Vec<u8>,
    }

    /// Sends a request: get, post, put, patch, delete or head. Every response is
    /// one, whatever its status.
    pub fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Response> {
        let mut found = ask("http", &method.to_lowercase(), &[("url", url)], headers, body)?;
        Ok(Response {
            status: found.args.get("status").and_then(|s| s.parse().ok()).unwrap_or(0),
            url: found.args.remove("url").unwrap_or_default(),
            headers: found.headers,
            body: found.payload,
        })
    }
}
