//! One line for each request: JSON, in the shape of the other lines on standard error. Part of the hit path: a line is
//! written straight to where it waits to be taken, and allocates nothing.

use std::cell::RefCell;
use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;

use super::Record;
use super::lines::Lines;
use crate::clock::{Clock, Moment};
use crate::config::{self, LoggedRequests};

/// What `POSTERN_LOG` calls these lines.
pub const TARGET: &str = "postern::access";

/// Standard error is the process's, as is what `tracing` logs to.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Has the requests of this process logged. Only the first call counts.
pub fn log_requests_to(lines: Lines) {
    let _ = LINES.set(lines);
}

/// Lines that were dropped so far, of all kinds.
pub(super) fn dropped() -> u64 {
    LINES.get().map_or(0, Lines::dropped)
}

/// What a thread uses again and again.
#[derive(Default)]
struct Buffers {
    query: String,
    second: Second,
}

/// The second that a thread's last line was of. Many lines are of one, so the time of day is asked for and written once for
/// all of them; in between the monotonic clock tells how far it has got.
#[derive(Default)]
struct Second {
    /// When it was asked for, and how much of the second was over then, in microseconds.
    asked: Option<(Moment, u64)>,
    /// Up to its whole seconds.
    written: String,
}

/// Logs a request, if it is one that the settings want to see.
pub(super) fn log(settings: &config::Log, clock: &Clock, record: &Record<'_>) {
    thread_local! {
        static BUFFERS: RefCell<Buffers> = RefCell::default();
    }
    let Some(lines) = LINES.get() else { return };
    if !wanted(settings, record) {
        return;
    }
    BUFFERS.with_borrow_mut(|buffers| {
        lines.put(|line| write(line, buffers, settings, clock, record));
    });
}

fn wanted(settings: &config::Log, record: &Record<'_>) -> bool {
    let failed = record.status.is_client_error() || record.status.is_server_error();
    match settings.requests {
        LoggedRequests::None => false,
        LoggedRequests::Errors => failed,
        LoggedRequests::All => failed || settings.sample >= 1.0 || fastrand::f64() < settings.sample,
    }
}

fn write(line: &mut Vec<u8>, buffers: &mut Buffers, settings: &config::Log, clock: &Clock, record: &Record<'_>) {
    let Buffers { query, second } = buffers;
    line.extend_from_slice(b"{\"timestamp\":\"");
    second.write(line, record.at, || clock.wall());
    line.extend_from_slice(
        b"\",\"level\":\"INFO\",\"message\":\"request\",\"target\":\"postern::access\",\"request_id\":\"",
    );
    line.extend_from_slice(record.request_id.as_bytes());
    line.push(b'"');
    if let Some(who) = record.who {
        // The configuration lets it have letters, digits and `-_.` alone.
        plain(line, b",\"tenant\":\"", &who.tenant.config.id);
        text(line, b",\"caller\":", who.name);
        if let Some(account) = who.linked_account.and_then(|account| settings.linked_accounts.name(account)) {
            text(line, b",\"linked_account\":", &account);
        }
    }
    plain(line, b",\"endpoint\":\"", record.resource.name());
    // A token of RFC 9110, 5.6.2.
    plain(line, b",\"method\":\"", record.method.as_str());
    if let Some(key) = record.key {
        let canonical = record.canonical.unwrap_or_else(|| {
            query.clear();
            key.question().write_canonical(query);
            query
        });
        // All but unreserved characters is percent-encoded.
        plain(line, b",\"query\":\"", canonical);
    }
    number(line, b",\"status\":", record.status.as_u16());
    if let Some(code) = record.error_code {
        text(line, b",\"error_code\":", code);
    }
    plain(line, b",\"cache\":\"", record.cache.name());
    if let Some(age) = record.age {
        number(line, b",\"age_s\":", age.as_secs());
    }
    number(line, b",\"duration_us\":", microseconds(record.duration));
    if let Some(upstream) = record.upstream {
        number(line, b",\"upstream_us\":", microseconds(upstream));
    }
    if let Some(trace) = record.trace {
        plain(line, b",\"trace_id\":\"", &trace.to_string());
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

/// A text in which nothing has to be escaped; `name` ends with the quotation mark.
fn plain(line: &mut Vec<u8>, name: &[u8], text: &str) {
    line.extend_from_slice(name);
    line.extend_from_slice(text.as_bytes());
    line.push(b'"');
}

impl Second {
    /// Writes a moment in RFC 3339, in microseconds; `wall` asks for the time of day.
    fn write(&mut self, line: &mut Vec<u8>, at: Moment, wall: impl FnOnce() -> Timestamp) {
        const SECONDS: DateTimePrinter = DateTimePrinter::new().precision(Some(0));
        let over = match self.asked.filter(|(asked, _)| *asked <= at) {
            Some((asked, over)) => over + microseconds(at.since(asked)),
            None => u64::MAX,
        };
        let rest = if over < 1_000_000 {
            over
        } else {
            let now = wall();
            self.written.clear();
            // Memory takes everything.
            let _ = SECONDS.print_timestamp(&now, &mut self.written);
            self.written.truncate(self.written.trim_end_matches('Z').len());
            let over = u64::try_from(now.subsec_nanosecond() / 1000).unwrap_or(0);
            self.asked = Some((at, over));
            over
        };
        line.extend_from_slice(self.written.as_bytes());
        // With the zeros in front.
        let mut digits = itoa::Buffer::new();
        line.push(b'.');
        line.extend_from_slice(&digits.format(1_000_000 + rest).as_bytes()[1..]);
        line.push(b'Z');
    }
}

/// Whether JSON has to escape something in a text (RFC 8259, 7). Looks at all of it, and so at many bytes at once.
#[expect(clippy::needless_bitwise_bool, reason = "lazy operators end at the first hit, byte by byte")]
fn has_escapes(text: &str) -> bool {
    text.bytes().fold(false, |found, byte| found | (byte < b' ') | (byte == b'"') | (byte == b'\\'))
}

fn text(line: &mut Vec<u8>, name: &[u8], text: &str) {
    line.extend_from_slice(name);
    if has_escapes(text) {
        // Memory takes everything, and every text can be written.
        let _ = serde_json::to_writer(&mut *line, text);
    } else {
        line.push(b'"');
        line.extend_from_slice(text.as_bytes());
        line.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_written_as_json_has_them() {
        for plain in ["", "a", "user_1@example.com", "Zoë", "a long name with spaces, colons: and commas"] {
            for put_in in ["", "\"", "\\", "\n", "\u{1f}", "\u{7f}", "\u{2028}"] {
                let name = format!("{plain}{put_in}{plain}");
                let mut line = Vec::new();
                text(&mut line, b"", &name);
                assert_eq!(serde_json::from_slice::<String>(&line).ok().as_deref(), Some(&*name), "{name:?}");
            }
        }
    }

    #[test]
    fn moments_are_written_to_the_microsecond_whether_or_not_they_share_a_second() {
        let clock = Clock::manual("2026-03-20T12:00:00.000481Z".parse().expect("a timestamp"));
        let (mut second, mut asked) = (Second::default(), 0);
        for (advance, text) in [
            (0, "2026-03-20T12:00:00.000481Z"),
            (0, "2026-03-20T12:00:00.000481Z"),
            (999_518, "2026-03-20T12:00:00.999999Z"),
            (1, "2026-03-20T12:00:01.000000Z"),
            (100_000, "2026-03-20T12:00:01.100000Z"),
            (86_400_000_000, "2026-03-21T12:00:01.100000Z"),
        ] {
            clock.advance(Duration::from_micros(advance));
            let mut line = Vec::new();
            second.write(&mut line, clock.now(), || {
                asked += 1;
                clock.wall()
            });
            assert_eq!(String::from_utf8_lossy(&line), text);
        }
        assert_eq!(asked, 3, "once a second");
        // A moment that lies behind is none of that second.
        let mut line = Vec::new();
        second.write(&mut line, Moment::default(), || Timestamp::UNIX_EPOCH);
        assert_eq!(String::from_utf8_lossy(&line), "1970-01-01T00:00:00.000000Z");
    }
}
