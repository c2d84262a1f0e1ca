//! Webhook deliveries, through a running gateway. The first byte is the size of a chunk, the rest is the body. Signed, a delivery
//! is accepted whatever its body is; signed by another key, it is not.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_fuzz::gateway::ask;

fuzz_target!(|data: &[u8]| {
    let Some((size, body)) = data.split_first() else { return };
    for (key, expected) in [(postern_fuzz::ORG_KEY, 204), ("another key", 401)] {
        let signature = postern_fuzz::hex(&postern_fuzz::hmac(key, body));
        let mut request = format!(
            "POST /hooks/refold/acme HTTP/1.1\r\nhost: gw\r\nconnection: close\r\nx-cobalt-signature: {signature}\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        .into_bytes();
        for chunk in body.chunks(usize::from(*size) * 16 + 1) {
            request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            request.extend_from_slice(chunk);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        assert_eq!(ask(&request), Some(expected));
    }
});
