//! One line for each request: JSON, in the shape of the other lines on standard error. Part of the hit path: a line is
//! written straight to where it waits to be taken, and allocates nothing.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;

use super::Record;
use super::lines::Lines;
use crate::clock::{Clock, Moment};
use crate::config::{self, Requests};

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
        Requests::None => false,
        Requests::Errors => failed,
        Requests::All => failed || settings.sample >= 1.0 || fastrand::f64() < settings.sample,
    }
}

fn write(line: &mut Vec<u8>, buffers: &mut Buffers, settings: &config::Log, clock: &Clock, record: &Record<'_>) {
    const HEAD: &[u8] =
        b"\",\"level\":\"INFO\",\"message\":\"request\",\"target\":\"postern::access\",\"request_id\":\"";
    let Buffers { query, second } = buffers;
    let (mut over, mut age, mut duration) = (itoa::Buffer::new(), itoa::Buffer::new(), itoa::Buffer::new());
    let (seconds, microsecond) = second.of(record.at, || clock.wall());
    // With the zeros in front, and a digit before them.
    let over = over.format(1_000_000 + microsecond);
    put(line, &[b"{\"timestamp\":\"", seconds.as_bytes(), b".", &over.as_bytes()[1..], b"Z", HEAD]);
    put(line, &[record.request_id.as_bytes()]);
    if let Some(caller) = record.caller {
        // The configuration lets it have letters, digits and `-_.` alone.
        let tenant = caller.tenant().config.id.as_bytes();
        put(line, &[b"\",\"tenant\":\"", tenant, b"\",\"caller\":\"", in_json(caller.name()).as_bytes()]);
        let account = caller.partition().linked_account_id();
        if let Some(account) = account.and_then(|account| settings.linked_accounts.name(account)) {
            put(line, &[b"\",\"linked_account\":\"", in_json(&account).as_bytes()]);
        }
    }
    // A method is a token of RFC 9110, 5.6.2.
    let (endpoint, method) = (record.resource.name().as_bytes(), record.method.as_str().as_bytes());
    put(line, &[b"\",\"endpoint\":\"", endpoint, b"\",\"method\":\"", method]);
    if let Some(key) = record.key {
        let canonical = record.canonical.unwrap_or_else(|| {
            query.clear();
            key.question().write_canonical(query);
            query
        });
        // All but unreserved characters is percent-encoded.
        put(line, &[b"\",\"query\":\"", canonical.as_bytes()]);
    }
    put(line, &[b"\",\"status\":", record.status.as_str().as_bytes()]);
    if let Some(code) = record.error_code {
        put(line, &[b",\"error_code\":\"", in_json(code).as_bytes(), b"\""]);
    }
    put(line, &[b",\"cache\":\"", record.cache.name().as_bytes(), b"\""]);
    if let Some(passed) = record.age {
        put(line, &[b",\"age_s\":", age.format(passed.as_secs()).as_bytes()]);
    }
    put(line, &[b",\"duration_us\":", duration.format(microseconds(record.duration)).as_bytes()]);
    if let Some(upstream) = record.upstream {
        put(line, &[b",\"upstream_us\":", itoa::Buffer::new().format(microseconds(upstream)).as_bytes()]);
    }
    if let Some(trace) = record.trace {
        put(line, &[b",\"trace_id\":\"", trace.to_string().as_bytes(), b"\""]);
    }
    put(line, &[b"}\n"]);
}

/// Appends pieces. One loop for all of them: forty copies of it would take a good part of the processor's instruction cache.
#[inline(never)]
fn put(line: &mut Vec<u8>, pieces: &[&[u8]]) {
    for piece in pieces {
        line.extend_from_slice(piece);
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Second {
    /// A moment in RFC 3339 as far as its whole seconds, and the microseconds that follow; `wall` asks for the time of day.
    fn of(&mut self, at: Moment, wall: impl FnOnce() -> Timestamp) -> (&str, u64) {
        const SECONDS: DateTimePrinter = DateTimePrinter::new().precision(Some(0));
        let over = match self.asked.filter(|(asked, _)| *asked <= at) {
            Some((asked, over)) => over + microseconds(at.since(asked)),
            None => u64::MAX,
        };
        if over < 1_000_000 {
            return (&self.written, over);
        }
        let now = wall();
        self.written.clear();
        // Memory takes everything.
        let _ = SECONDS.print_timestamp(&now, &mut self.written);
        self.written.truncate(self.written.trim_end_matches('Z').len());
        let over = u64::try_from(now.subsec_nanosecond() / 1000).unwrap_or(0);
        self.asked = Some((at, over));
        (&self.written, over)
    }
}

/// What JSON has escapes for (RFC 8259, 7).
const ESCAPED: [bool; 256] = {
    let mut escaped = [false; 256];
    let mut control = 0;
    while control < b' ' {
        escaped[control as usize] = true;
        control += 1;
    }
    escaped[b'"' as usize] = true;
    escaped[b'\\' as usize] = true;
    escaped
};

/// A text as it stands between quotation marks.
fn in_json(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| ESCAPED[usize::from(byte)]) {
        // Every text can be written.
        let quoted = serde_json::to_string(text).unwrap_or_default();
        return quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned().into();
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_written_as_json_has_them() {
        for plain in ["", "a", "user_1@example.com", "Zoë", "a long name with spaces, colons: and commas"] {
            for put_in in ["", "\"", "\\", "\n", "\u{1f}", "\u{7f}", "\u{2028}"] {
                let name = format!("{plain}{put_in}{plain}");
                let quoted = format!("\"{}\"", in_json(&name));
                assert_eq!(serde_json::from_str::<String>(&quoted).ok().as_deref(), Some(&*name), "{name:?}");
            }
        }
    }

    #[test]
    fn moments_are_written_to_the_microsecond_whether_or_not_they_share_a_second() {
        let clock = Clock::manual("2026-03-20T12:00:00.000481Z".parse().expect("a timestamp"));
        let (mut second, mut asked) = (Second::default(), 0);
        for (advance, text) in [
            (0, ("2026-03-20T12:00:00", 481)),
            (0, ("2026-03-20T12:00:00", 481)),
            (999_518, ("2026-03-20T12:00:00", 999_999)),
            (1, ("2026-03-20T12:00:01", 0)),
            (100_000, ("2026-03-20T12:00:01", 100_000)),
            (86_400_000_000, ("2026-03-21T12:00:01", 100_000)),
        ] {
            clock.advance(Duration::from_micros(advance));
            let shown = second.of(clock.now(), || {
                asked += 1;
                clock.wall()
            });
            assert_eq!(shown, text);
        }
        assert_eq!(asked, 3, "once a second");
        // A moment that lies behind is none of that second.
        assert_eq!(second.of(Moment::default(), || Timestamp::UNIX_EPOCH), ("1970-01-01T00:00:00", 0));
    }
}
