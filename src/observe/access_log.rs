//! One line for each request: JSON, in the shape of the other lines on standard error. Part of the hit path: a line is
//! written into a buffer that its thread uses again and again, and allocates nothing.

use std::cell::RefCell;
use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;

use super::Record;
use super::lines::Lines;
use crate::clock::Clock;
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

/// What a thread writes its lines into.
struct Buffers {
    line: Vec<u8>,
    query: String,
}

/// Logs a request, if it is one that the settings want to see.
pub(super) fn log(settings: &config::Log, clock: &Clock, record: &Record<'_>) {
    thread_local! {
        static BUFFERS: RefCell<Buffers> =
            RefCell::new(Buffers { line: Vec::with_capacity(1024), query: String::with_capacity(256) });
    }
    let Some(lines) = LINES.get() else { return };
    if !wanted(settings, record) {
        return;
    }
    BUFFERS.with_borrow_mut(|buffers| {
        write(buffers, settings, clock.wall(), record);
        lines.put(&buffers.line);
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

fn write(buffers: &mut Buffers, settings: &config::Log, now: Timestamp, record: &Record<'_>) {
    const MICROSECONDS: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
    let Buffers { line, query } = buffers;
    line.clear();
    line.extend_from_slice(b"{\"timestamp\":\"");
    // Memory takes everything.
    let _ = MICROSECONDS.print_timestamp(&now, &mut *line);
    line.extend_from_slice(
        b"\",\"level\":\"INFO\",\"message\":\"request\",\"target\":\"postern::access\",\"request_id\":\"",
    );
    record.request_id.write(line);
    line.push(b'"');
    if let Some(caller) = record.caller {
        text(line, b",\"tenant\":", &caller.tenant().config.id);
        text(line, b",\"caller\":", caller.name());
        if let Some(account) = caller.partition().linked_account_id() {
            let name = b",\"linked_account\":";
            match settings.linked_accounts {
                Shown::Plain => text(line, name, account),
                Shown::Hashed => text(line, name, &Hex(&sha256(account.as_bytes())[..DIGITS / 2]).to_string()),
                Shown::None => {}
            }
        }
    }
    word(line, b",\"endpoint\":\"", record.resource.name());
    text(line, b",\"method\":", record.method.as_str());
    if let Some(key) = record.key {
        query.clear();
        key.question().write_canonical(query);
        text(line, b",\"query\":", query);
    }
    number(line, b",\"status\":", record.status.as_u16());
    if let Some(code) = record.error_code {
        text(line, b",\"error_code\":", code);
    }
    word(line, b",\"cache\":\"", record.cache.name());
    if let Some(age) = record.age {
        number(line, b",\"age_s\":", age.as_secs());
    }
    number(line, b",\"duration_us\":", microseconds(record.duration));
    if let Some(upstream) = record.upstream {
        number(line, b",\"upstream_us\":", microseconds(upstream));
    }
    if let Some(trace) = record.trace {
        text(line, b",\"trace_id\":", &trace.to_string());
    }
    line.extend_from_slice(b"}\n");
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn number(line: &mut Vec<u8>, name: &[u8], number: impl itoa::Integer) {
    line.extend_from_slice(name);
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A text of our own, in which nothing has to be escaped; `name` ends with the quotation mark.
fn word(line: &mut Vec<u8>, name: &[u8], word: &'static str) {
    line.extend_from_slice(name);
    line.extend_from_slice(word.as_bytes());
    line.push(b'"');
}

fn text(line: &mut Vec<u8>, name: &[u8], text: &str) {
    line.extend_from_slice(name);
    // Memory takes everything, and every text can be written.
    let _ = serde_json::to_writer(&mut *line, text);
}
