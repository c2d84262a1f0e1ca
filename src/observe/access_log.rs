//! One line for each request: JSON, in the shape of the other lines on standard error. Part of the hit path: a line is
//! written into a buffer that its thread uses again and again, and allocates nothing.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::sync::OnceLock;

use jiff::fmt::temporal::DateTimePrinter;

use super::Record;
use super::lines::Lines;
use crate::config::{self, Requests, Shown};
use crate::digest::{Hex, sha256};

/// What `POSTERN_LOG` calls these lines.
pub const TARGET: &str = "postern::access";

/// Standard error is the process's, as is what `tracing` logs to.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Digits of a linked account's SHA-256 that stand for it.
const DIGITS: usize = 16;

/// Has the requests of this process logged. Only the first call counts.
pub fn log_requests_to(lines: Lines) {
    let _ = LINES.set(lines);
}

/// Lines that were dropped so far, of all kinds.
pub(super) fn dropped() -> u64 {
    LINES.get().map_or(0, Lines::dropped)
}

/// Logs a request, if it is one that the settings want to see.
pub(super) fn log(settings: &config::Log, clock: &crate::clock::Clock, record: &Record<'_>) {
    thread_local! {
        static LINE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(1024));
    }
    let Some(lines) = LINES.get() else { return };
    if !wanted(settings, record) {
        return;
    }
    LINE.with_borrow_mut(|line| {
        line.clear();
        write(line, settings, clock.wall(), record);
        lines.put(line);
    });
}

fn wanted(settings: &config::Log, record: &Record<'_>) -> bool {
    let failed = record.status.is_client_error() || record.status.is_server_error();
    match settings.requests {
        Requests::None => false,
        Requests::Errors => failed,
        Requests::All => failed || settings.sample >= 1.0 || fastrand::f64() < settings.sample,
    }
}

fn write(line: &mut Vec<u8>, settings: &config::Log, now: jiff::Timestamp, record: &Record<'_>) {
    const MICROSECONDS: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
    line.extend_from_slice(b"{\"timestamp\":\"");
    // Memory takes everything.
    let _ = MICROSECONDS.print_timestamp(&now, &mut *line);
    line.extend_from_slice(b"\",\"level\":\"INFO\",\"message\":\"request\",\"target\":\"postern::access\"");
    field(line, "request_id", |line| display(line, &record.request_id));
    if let Some(caller) = record.caller {
        field(line, "tenant", |line| text(line, &caller.tenant().config.id));
        field(line, "caller", |line| text(line, caller.name()));
        if let Some(account) = caller.partition().linked_account_id() {
            match settings.linked_accounts {
                Shown::Plain => field(line, "linked_account", |line| text(line, account)),
                Shown::Hashed => {
                    let digest = sha256(account.as_bytes());
                    field(line, "linked_account", |line| display(line, &Hex(&digest[..DIGITS / 2])));
                }
                Shown::None => {}
            }
        }
    }
    field(line, "endpoint", |line| text(line, record.resource.name()));
    field(line, "method", |line| text(line, record.method.as_str()));
    if let Some(key) = record.key {
        field(line, "query", |line| display(line, key.question()));
    }
    field(line, "status", |line| integer(line, record.status.as_u16()));
    if let Some(code) = record.error_code {
        field(line, "error_code", |line| text(line, code));
    }
    field(line, "cache", |line| text(line, record.cache.name()));
    if let Some(age) = record.age {
        field(line, "age_s", |line| integer(line, age.as_secs()));
    }
    field(line, "duration_us", |line| integer(line, record.duration.as_micros()));
    if let Some(upstream) = record.upstream {
        field(line, "upstream_us", |line| integer(line, upstream.as_micros()));
    }
    if let Some(trace) = record.trace {
        field(line, "trace_id", |line| display(line, &trace));
    }
    line.extend_from_slice(b"}\n");
}

fn field(line: &mut Vec<u8>, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
    value(line);
}

fn integer(line: &mut Vec<u8>, number: impl itoa::Integer) {
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn text(line: &mut Vec<u8>, text: &str) {
    // Memory takes everything, and every text can be written.
    let _ = serde_json::to_writer(&mut *line, text);
}

/// What prints as visible ASCII without quotation marks and backslashes goes in as it is, and is written but once; all else
/// is escaped.
fn display(line: &mut Vec<u8>, value: &impl fmt::Display) {
    struct Plain<'a>(&'a mut Vec<u8>);
    impl fmt::Write for Plain<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
            if !text.bytes().all(plain) {
                return Err(fmt::Error);
            }
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    let start = line.len();
    line.push(b'"');
    if write!(Plain(line), "{value}").is_ok() {
        line.push(b'"');
    } else {
        line.truncate(start);
        text(line, &value.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_end_a_json_text_is_escaped() {
        let mut line = Vec::new();
        for (value, json) in
            [("a?b=c%20d", "\"a?b=c%20d\""), ("a\"b", r#""a\"b""#), ("a\\b\n", r#""a\\b\n""#), ("é", "\"é\"")]
        {
            line.clear();
            display(&mut line, &value);
            assert_eq!(String::from_utf8_lossy(&line), json);
        }
    }
}
