use std::io;

use http::StatusCode;
use serde_json::{Value, json};

use super::*;
use crate::cache::CacheOutcome;
use crate::config::{AccountNaming, LoggedRequests};
use crate::error::{ClientError, Reason};
use crate::observe::RequestOrigin;
use crate::observe::access_record::AccessError;
use crate::request::RequestId;
use crate::request::route::Resource;

fn line_with(error: Option<AccessError<'_>>) -> Value {
    let record = AccessRecord {
        request_id: RequestId::new(),
        method: "GET",
        origin: RequestOrigin::default(),
        execution: None,
        bytes: None,
        resource: Resource::List,
        caller: None,
        key: None,
        canonical: None,
        status: StatusCode::BAD_GATEWAY,
        error,
        cache: CacheOutcome::Miss { collapsed: false },
        age: None,
        answered_at: Moment::default(),
        duration: Duration::from_millis(1),
        upstream_duration: None,
        trace_id: None,
    };
    let settings = config::Log { requests: LoggedRequests::All, sample: 1.0, linked_accounts: AccountNaming::Plain };
    let clock = Clock::manual("2026-03-20T12:00:00Z".parse().expect("a timestamp"));
    let mut line = Vec::new();
    write(&mut line, &mut Buffers::default(), &settings, &clock, &record);
    serde_json::from_slice(&line).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&line)))
}

#[test]
fn a_line_shows_the_cause_of_an_error() {
    let cause = io::Error::other("tls \"alert\"\n\u{7}");
    let error = ClientError::new(Reason::UpstreamUnreachable, "Refold can't be reached").caused_by(cause);
    let line = line_with(Some(AccessError::from(&error)));
    assert_eq!(line["error_code"], json!("UPSTREAM_UNREACHABLE"));
    assert_eq!(line["cause"], json!("tls \"alert\"\n\u{7}"));
}

#[test]
fn a_line_has_no_cause_without_one() {
    let error = ClientError::new(Reason::Overloaded, "try again");
    for error in [None, Some(AccessError::from(&error))] {
        let line = line_with(error);
        assert!(line.get("cause").is_none(), "{line}");
        assert_eq!(line.get("error_code").is_some(), error.is_some());
    }
}

#[test]
fn strings_are_written_as_json_has_them() {
    for plain in ["", "a", "user_1@example.com", "Zoë", "a long name with spaces, colons: and commas"] {
        for put_in in ["", "\"", "\\", "\n", "\u{1f}", "\u{7f}", "\u{2028}"] {
            let name = format!("{plain}{put_in}{plain}");
            let mut line = Vec::new();
            push_string(&mut line, b"", &name);
            assert_eq!(serde_json::from_slice::<String>(&line).ok().as_deref(), Some(&*name), "{name:?}");
        }
    }
}

#[test]
fn timestamps_have_microseconds_and_one_clock_reading_a_second() {
    let clock = Clock::manual("2026-03-20T12:00:00.000481Z".parse().expect("a timestamp"));
    let (mut timestamp, mut readings) = (TimestampCache::default(), 0);
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
        timestamp.push(&mut line, clock.now(), || {
            readings += 1;
            clock.wall()
        });
        assert_eq!(String::from_utf8_lossy(&line), text);
    }
    assert_eq!(readings, 3, "once a second");
    // A moment before the last reading is not in its second.
    let mut line = Vec::new();
    timestamp.push(&mut line, Moment::default(), || Timestamp::UNIX_EPOCH);
    assert_eq!(String::from_utf8_lossy(&line), "1970-01-01T00:00:00.000000Z");
}
