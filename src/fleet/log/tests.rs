use std::time::Duration;

use super::*;

fn at(millis: u64) -> Moment {
    Moment::default() + Duration::from_millis(millis)
}

fn position(millis: u64) -> LogPosition {
    LogPosition { millis, sequence: 0 }
}

/// A replica that has joined a log that ends at 10, with a beat sent at 1 s.
fn joined() -> LogFollower {
    let mut log = LogFollower::default();
    assert!(log.beat(b"one", position(10), (at(1000), None)), "nothing from before is current");
    log.settle();
    assert_eq!(log.trusted_until(), at(1300));
    log
}

#[test]
fn positions_are_ordered_by_time_and_number() {
    let read = |text: &str| LogPosition::parse(text.as_bytes());
    assert!(read("9-5") < read("10-0") && read("10-9") < read("10-10") && read("0-0") == Some(LogPosition::default()));
    assert_eq!(read("1700000000000-7").expect("valid").to_string(), "1700000000000-7");
    assert_eq!((read(""), read("7"), read("a-1"), read("1--1")), (None, None, None, None));
}

#[test]
fn a_beat_extends_trust_once_the_log_is_read_to_its_end() {
    let mut log = joined();
    assert!(!log.beat(b"one", position(12), (at(1100), log.position())));
    log.settle();
    assert_eq!(log.trusted_until(), at(1300), "an entry is missing");
    assert_eq!(log.entry(position(11), Some(position(10))), Continuity::Follows);
    log.settle();
    assert_eq!(log.trusted_until(), at(1300), "one more is missing");
    assert_eq!(log.entry(position(12), Some(position(11))), Continuity::Follows);
    log.settle();
    assert_eq!(log.trusted_until(), at(1400));
}

#[test]
fn under_a_stream_of_drops_each_beat_counts_as_soon_as_it_is_reached() {
    let mut log = joined();
    for step in 1..=20 {
        let read = log.position();
        assert!(!log.beat(b"one", position(10 + step + 1), (at(1000 + 100 * step), read)));
        assert_eq!(log.entry(position(10 + step), Some(position(9 + step))), Continuity::Follows);
        log.settle();
        assert_eq!(log.trusted_until(), at(1300 + 100 * (step - 1)), "one beat behind");
    }
}

#[test]
fn an_entry_that_does_not_follow_the_last_one_is_a_gap() {
    let mut log = joined();
    assert_eq!(log.entry(position(13), Some(position(12))), Continuity::Gap);
    assert_eq!(log.entry(position(13), Some(position(12))), Continuity::Known);
    assert_eq!(log.entry(position(14), Some(position(13))), Continuity::Follows);
    assert_eq!(log.entry(position(15), None), Continuity::Gap, "it does not tell");
}

#[test]
fn another_epoch_or_a_log_that_ends_earlier_means_that_state_was_lost() {
    for (epoch, end) in [(&b"two"[..], 10), (b"one", 9), (b"one", 0), (b"two", 11)] {
        let mut log = joined();
        assert!(log.beat(epoch, position(end), (at(1100), log.position())), "{epoch:?} {end}");
        log.settle();
        assert_eq!((log.position(), log.trusted_until()), (Some(position(end)), at(1400)));
    }
}

#[test]
fn an_entry_that_overtakes_the_answer_to_a_beat_loses_nothing() {
    let mut log = joined();
    let read = log.position();
    // The beat ran on the server before the entry was added, and its answer is read after it.
    assert_eq!(log.entry(position(11), Some(position(10))), Continuity::Follows);
    assert!(!log.beat(b"one", position(10), (at(1100), read)));
    log.settle();
    assert_eq!(log.trusted_until(), at(1400));
}

#[test]
fn nothing_of_before_is_trusted_on_another_server() {
    let mut log = joined();
    log.another_server();
    assert_eq!(log.trusted_until(), Moment::default());
    assert!(log.beat(b"one", position(10), (at(1100), log.position())), "the copy may lack drops");
}
