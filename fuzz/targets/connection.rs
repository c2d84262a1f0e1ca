//! A whole connection: bytes of HTTP/1.1 or HTTP/2, answered by a gateway in front of the simulated Refold. After it, the gateway
//! still answers others.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_fuzz::gateway::{ask, exchange};

const USUAL: &[u8] = b"GET /api/v2/public/execution HTTP/1.1\r\nhost: gw\r\nconnection: close\r\n\
    x-api-key: pst_fuzz\r\nlinked_account_id: acme-1\r\n\r\n";

fuzz_target!(|data: &[u8]| {
    // One byte that occurs in no seed separates what is sent in two parts.
    let received = exchange(data.split(|byte| *byte == 0xff));
    let is_http = received.starts_with(b"HTTP/1.") || received.get(3) == Some(&4) || received.is_empty();
    assert!(is_http, "neither HTTP/1.1 nor HTTP/2 settings: {:?}", String::from_utf8_lossy(&received));
    assert_eq!(ask(USUAL), Some(200));
});
