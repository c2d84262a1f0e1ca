//! HTTP/2 connections frame by frame (RFC 9113).

use super::{EXECUTIONS, KEY};

pub(crate) const HEADERS: u8 = 1;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The start of a connection: the preface, and SETTINGS without a setting (RFC 9113, 3.4).
pub(crate) fn opening() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("it is short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The frame of a webhook's head, with so many fields of one byte each. Its content is still to come.
pub(crate) fn webhook_frame(stream: u32, fields: usize) -> Vec<u8> {
    let signature = "0".repeat(64);
    let mut block = literals(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/hooks/refold/t"),
        (":authority", "a"),
        ("x-cobalt-signature", &signature),
    ]);
    // The `user-agent` of the static table, which is empty (RFC 7541, 6.1 and A).
    block.resize(block.len() + fields, 0x80 | 0x3a);
    frame(HEADERS, END_HEADERS, stream, &block)
}

/// The frame of a whole request for the executions of a linked account.
pub(crate) fn request_frame(stream: u32, linked_account: &str) -> Vec<u8> {
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", EXECUTIONS),
        (":authority", "a"),
        ("x-api-key", KEY),
        ("linked_account_id", linked_account),
    ];
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &literals(&fields))
}

/// A block of literal fields that are not indexed (RFC 7541, 6.2.2).
fn literals(fields: &[(&str, &str)]) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short one");
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [*name, *value] {
            block.push(length(text));
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}
