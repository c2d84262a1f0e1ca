use super::*;

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
