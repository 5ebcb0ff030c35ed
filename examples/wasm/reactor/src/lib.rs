//! Answers each message with its payload followed by the subject it came on
//! and the number of messages this instance has answered.
//!
//! A reactor is a library: Nex keeps it in memory and calls its functions, so
//! a call costs no start of a program, and state stays from one call to the
//! next. The README says how the two functions work.

use std::cell::RefCell;

#[derive(Default)]
struct State {
    request: Vec<u8>, // the subject, then the payload
    reply: Vec<u8>,
    calls: u64,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// Returns a place for the next request. It is ours and is used again.
#[no_mangle]
pub extern "C" fn nex_alloc(size: usize) -> *mut u8 {
    STATE.with(|s| {
        let mut s = s.borrow_mut();
        s.request.resize(size, 0);
        s.request.as_mut_ptr()
    })
}

/// Answers the request that was written to the place.
#[no_mangle]
pub extern "C" fn nex_invoke(_at: usize, subject: usize, _payload_at: usize, _payload: usize) -> u64 {
    STATE.with(|s| {
        let mut s = s.borrow_mut();
        let State { request, reply, calls } = &mut *s;
        *calls += 1;
        let (subject, payload) = request.split_at(subject);
        reply.clear();
        let failed = payload == b"fail";
        if failed {
            reply.extend_from_slice(b"asked to fail");
        } else {
            reply.extend_from_slice(payload);
            reply.extend_from_slice(subject);
            reply.extend_from_slice(calls.to_string().as_bytes());
        }
        answer(reply, failed)
    })
}

/// Packs where a reply is, its size, and whether it is an error.
fn answer(reply: &[u8], failed: bool) -> u64 {
    u64::from(failed) << 63 | (reply.as_ptr() as u64) << 32 | reply.len() as u64
}
