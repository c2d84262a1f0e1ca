use std::time::Duration;

use super::*;

/// Counts what it is told to drop.
#[derive(Default)]
struct Dropped {
    entries: AtomicU64,
    everything: AtomicU64,
}

impl EntryDropper for Dropped {
    fn drop_entries(&self, _: &DroppedEntries, _: u64) {
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    fn drop_everything(&self) {
        self.everything.fetch_add(1, Ordering::Relaxed);
    }
}

fn state() -> (CacheState, Arc<Dropped>) {
    let state = CacheState::new(IntCounter::new("forgotten", "Forgotten.").expect("the name is valid"));
    let dropped = Arc::<Dropped>::default();
    state.set_dropper(Arc::clone(&dropped) as Arc<dyn EntryDropper>);
    (state, dropped)
}

fn drop_of(tenant: &str, partition: Option<&str>) -> DroppedEntries {
    DroppedEntries { tenant: tenant.into(), partition: partition.map(Into::into) }
}

fn position(text: &str) -> LogPosition {
    LogPosition::parse(text.as_bytes()).expect("a position")
}

#[test]
fn a_drop_that_is_kept_while_an_equal_one_is_sent_is_sent_too() {
    let (state, _) = state();
    let dropped = drop_of("t", Some("a"));
    state.keep_unsent(&dropped);
    let being_sent = state.unsent();
    state.keep_unsent(&dropped);
    for (number, _) in being_sent {
        state.sent(number);
    }
    let left = state.unsent();
    assert_eq!(left.iter().map(|(_, dropped)| dropped).collect::<Vec<_>>(), [&dropped]);
    state.sent(left[0].0);
    assert!(state.has_told_all());
}

#[test]
fn very_many_unsent_drops_become_those_of_their_tenants() {
    let (state, _) = state();
    for account in 0..=MOST_UNSENT {
        state.keep_unsent(&drop_of("t", Some(&account.to_string())));
    }
    let kept: Vec<_> = state.unsent().into_iter().map(|(_, dropped)| dropped).collect();
    assert_eq!(kept, [drop_of("t", None), drop_of("t", Some(&MOST_UNSENT.to_string()))]);
}

#[test]
fn nothing_is_trusted_while_a_drop_is_unsent() {
    let (state, _) = state();
    let now = Moment::default() + Duration::from_secs(1);
    let beat = || state.beat(b"one", position("1-0"), (now, Some(position("1-0"))));
    beat();
    assert_eq!(state.trust().lost_at(now), None);
    state.keep_unsent(&drop_of("t", None));
    beat();
    assert!(state.trust().lost_at(now).is_some());
    state.sent(state.unsent()[0].0);
    beat();
    assert_eq!(state.trust().lost_at(now), None);
}

#[test]
fn an_entry_that_is_not_understood_drops_everything_once_and_is_passed() {
    let (state, dropped) = state();
    let now = Moment::default() + Duration::from_secs(1);
    state.beat(b"one", position("1-0"), (now, None));
    let entry = |at, after, event| LogEntry { position: position(at), after, event };
    let drop = LoggedDrop { dropped: drop_of("t", None), generation: 7 };
    assert!(state.apply(vec![entry("2-0", None, None)]), "it may have been a drop, for which a replica waits");
    assert!(state.apply(vec![entry("3-0", Some(position("2-0")), Some(LogEvent::Dropped(drop)))]));
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    assert_eq!(
        (count(&dropped.everything), count(&dropped.entries)),
        (2, 1),
        "at the first beat, and at the unknown entry"
    );
    assert_eq!(state.position(), Some(position("3-0")));
}
