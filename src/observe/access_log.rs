//! The access log: one line of JSON for each request, in the shape of the other lines on standard error.
//!
//! Part of the hit path: a line is written straight into the buffer of the log writer and allocates nothing.

use std::cell::RefCell;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;

use super::access_record::{AccessRecord, write_cause};
use super::log_text::{push_bounded, push_number, push_plain, push_string};
use super::log_writer::LogWriter;
use crate::clock::{Clock, Moment};
use crate::config::{self, LoggedRequests};

/// Most bytes of a path in a line.
const MAX_PATH: usize = 256;

/// The target of these lines in the directives of `POSTERN_LOG`.
pub const TARGET: &str = "postern::access";

/// Memory that a thread reuses from line to line.
#[derive(Default)]
struct Buffers {
    scratch: String,
    timestamp: TimestampCache,
}

/// The second of a thread's last line, written out once for all lines of that second. The monotonic clock measures how much
/// of the second has passed, so the time of day is read once a second at most.
#[derive(Default)]
struct TimestampCache {
    /// When the time of day was read, and how many microseconds of the second had passed then.
    read: Option<(Moment, u64)>,
    /// The timestamp up to its whole seconds.
    seconds: String,
}

/// Writes the line of a request, if the settings select it.
pub(super) fn log(writer: &LogWriter, settings: &config::Log, clock: &Clock, record: &AccessRecord<'_>) {
    thread_local! {
        static BUFFERS: RefCell<Buffers> = RefCell::default();
    }
    if !is_selected(settings, record) {
        return;
    }
    BUFFERS.with_borrow_mut(|buffers| {
        writer.put(|line| write(line, buffers, settings, clock, record));
    });
}

fn is_selected(settings: &config::Log, record: &AccessRecord<'_>) -> bool {
    if record.is_audited() {
        return true;
    }
    let failed = record.status.is_client_error() || record.status.is_server_error();
    match settings.requests {
        LoggedRequests::None => false,
        LoggedRequests::Errors => failed,
        LoggedRequests::All => failed || settings.sample >= 1.0 || fastrand::f64() < settings.sample,
    }
}

fn write(line: &mut Vec<u8>, buffers: &mut Buffers, settings: &config::Log, clock: &Clock, record: &AccessRecord<'_>) {
    let Buffers { scratch, timestamp } = buffers;
    line.extend_from_slice(b"{\"timestamp\":\"");
    timestamp.push(line, record.answered_at, || clock.wall());
    line.extend_from_slice(
        b"\",\"level\":\"INFO\",\"message\":\"request\",\"target\":\"postern::access\",\"request_id\":\"",
    );
    line.extend_from_slice(record.request_id.as_bytes());
    line.push(b'"');
    if let Some(caller) = record.caller {
        // The configuration allows letters, digits and `-_.` only.
        push_plain(line, b",\"tenant\":\"", &caller.tenant.config.id);
        push_string(line, b",\"caller\":", caller.name);
        if let Some(account) = caller.linked_account.and_then(|account| settings.linked_accounts.name(account)) {
            push_string(line, b",\"linked_account\":", &account);
        }
    }
    let callers_trace = record.origin.push(line);
    push_plain(line, b",\"endpoint\":\"", record.resource.name());
    push_plain(line, b",\"method\":\"", record.method);
    let canonical = record.canonical.or_else(|| {
        scratch.clear();
        record.key?.question().write_canonical(scratch);
        Some(scratch)
    });
    if let Some(canonical) = canonical {
        // Everything but unreserved characters is percent-encoded.
        push_plain(line, b",\"query\":\"", canonical);
    }
    if record.is_audited() {
        push_audit(line, record);
    }
    push_number(line, b",\"status\":", record.status.as_u16());
    if let Some(error) = record.error {
        push_string(line, b",\"error_code\":", error.code);
        if let Some(cause) = error.cause {
            scratch.clear();
            write_cause(scratch, cause);
            push_string(line, b",\"cause\":", scratch);
        }
    }
    push_plain(line, b",\"cache\":\"", record.cache.name());
    if let Some(age) = record.age {
        push_number(line, b",\"age_s\":", age.as_secs());
    }
    push_number(line, b",\"duration_us\":", microseconds(record.duration));
    if let Some(upstream) = record.upstream_duration {
        push_number(line, b",\"upstream_us\":", microseconds(upstream));
    }
    if let Some(bytes) = record.bytes {
        push_number(line, b",\"bytes\":", bytes);
    }
    if let Some(trace_id) = record.trace_id.or(callers_trace) {
        push_plain(line, b",\"trace_id\":\"", &trace_id.to_string());
    }
    line.extend_from_slice(b"}\n");
}

/// Appends the object of a write: the execution, or the path of a request that is passed through.
fn push_audit(line: &mut Vec<u8>, record: &AccessRecord<'_>) {
    line.extend_from_slice(b",\"audit\":true");
    match (record.execution, record.origin.head) {
        (Some(execution), _) => push_string(line, b",\"execution\":", execution.as_str()),
        (None, Some(head)) => push_bounded(line, b",\"path\":", head.uri.path().as_bytes(), MAX_PATH),
        (None, None) => {}
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl TimestampCache {
    /// Appends a moment as in RFC 3339, to the microsecond; `wall` reads the time of day.
    fn push(&mut self, line: &mut Vec<u8>, at: Moment, wall: impl FnOnce() -> Timestamp) {
        const SECONDS: DateTimePrinter = DateTimePrinter::new().precision(Some(0));
        let passed = match self.read.filter(|(read, _)| *read <= at) {
            Some((read, passed)) => passed + microseconds(at.since(read)),
            None => u64::MAX,
        };
        let fraction = if passed < 1_000_000 {
            passed
        } else {
            let now = wall();
            self.seconds.clear();
            // Writing to memory does not fail.
            let _ = SECONDS.print_timestamp(&now, &mut self.seconds);
            self.seconds.truncate(self.seconds.trim_end_matches('Z').len());
            let passed = u64::try_from(now.subsec_nanosecond() / 1000).unwrap_or(0);
            self.read = Some((at, passed));
            passed
        };
        line.extend_from_slice(self.seconds.as_bytes());
        line.push(b'.');
        // The leading 1 pads the fraction with zeros and is left out.
        line.extend_from_slice(&itoa::Buffer::new().format(1_000_000 + fraction).as_bytes()[1..]);
        line.push(b'Z');
    }
}

#[cfg(test)]
mod tests;
