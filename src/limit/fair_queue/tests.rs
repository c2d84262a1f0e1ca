use proptest::prelude::*;

use super::*;

/// What can happen to lines.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Somebody joins a line, to renew what was asked for then.
    Join(FlowId, Urgency, u64),
    /// The waiter with this number leaves.
    Leave(usize),
    Serve,
}

fn urgency() -> impl Strategy<Value = Urgency> {
    prop_oneof![Just(Urgency::Foreground), Just(Urgency::Background)]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        // A greedy line, and others.
        4 => (urgency(), 0_u64..50).prop_map(|(urgency, renews)| Event::Join(0, urgency, renews)),
        4 => (1_u64..6, urgency(), 0_u64..50).prop_map(|(line, urgency, renews)| Event::Join(line, urgency, renews)),
        1 => (0_usize..100).prop_map(Event::Leave),
        4 => Just(Event::Serve),
    ];
    proptest::collection::vec(event, 1..200)
}

/// A waiter as the test sees it.
struct Seen {
    line: FlowId,
    slot: Option<oneshot::Receiver<()>>,
    /// PermitQueue that each line has had since it joined.
    turns: [u64; 6],
}

fn run(events: Vec<Event>) -> Result<(), TestCaseError> {
    let mut lines = FairQueue::default();
    let mut seen: Vec<Seen> = Vec::new();
    let mut served = 0;
    let serve = |lines: &mut FairQueue, seen: &mut Vec<Seen>| -> Result<bool, TestCaseError> {
        let Some(waiter) = lines.next() else { return Ok(false) };
        prop_assert!(waiter.slot.send(()).is_ok(), "whoever is served is there");
        let index = seen.iter_mut().position(|seen| seen.slot.as_mut().is_some_and(|slot| slot.try_recv().is_ok()));
        let index = index.expect("a waiter that was seen");
        let line = seen[index].line;
        seen[index].slot = None;
        let own = seen[index].turns[usize::try_from(line).expect("small")];
        for (other, turns) in seen[index].turns.iter().enumerate() {
            prop_assert!(
                *turns <= own + 2 + 2 * LEEWAY,
                "line {other} had {turns} turns while a waiter of line {line} saw {own} of its own line"
            );
        }
        let line = usize::try_from(line).expect("small");
        seen.iter_mut().filter(|seen| seen.slot.is_some()).for_each(|seen| seen.turns[line] += 1);
        Ok(true)
    };
    for event in events {
        match event {
            Event::Join(line, urgency, renews) => {
                let (slot, waiting) = oneshot::channel();
                let deadline = Moment::from_nanos(u64::MAX);
                lines.join(line, urgency, QueuedRequest { slot, deadline, renews: Moment::from_nanos(renews) });
                seen.push(Seen { line, slot: Some(waiting), turns: [0; 6] });
            }
            Event::Leave(index) => {
                if let Some(seen) = seen.get_mut(index) {
                    seen.slot = None;
                }
            }
            Event::Serve => served += usize::from(serve(&mut lines, &mut seen)?),
        }
        let there = seen.iter().filter(|seen| seen.slot.is_some()).count();
        let still_there = lines.still_there();
        prop_assert_eq!(still_there.callers + still_there.renewals, there, "nobody is lost");
    }
    while serve(&mut lines, &mut seen)? {
        served += 1;
    }
    prop_assert!(seen.iter().all(|seen| seen.slot.is_none()), "all who stayed were served, {}", served);
    lines.tidy(Moment::default());
    prop_assert_eq!(lines.waiting(), 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_line_gets_more_ahead_of_another_one_that_waits_than_the_leeway(events in events()) {
        run(events)?;
    }
}

fn join(lines: &mut FairQueue, line: FlowId, urgency: Urgency, renews: u64) -> oneshot::Receiver<()> {
    let (slot, waiting) = oneshot::channel();
    let waiter = QueuedRequest { slot, deadline: Moment::from_nanos(100), renews: Moment::from_nanos(renews) };
    lines.join(line, urgency, waiter);
    waiting
}

fn order(lines: &mut FairQueue) -> Vec<u64> {
    std::iter::from_fn(|| lines.next()).map(|waiter| waiter.renews.as_nanos()).collect()
}

#[test]
fn the_oldest_renewal_goes_first_until_its_line_is_ahead_of_its_share() {
    let mut lines = FairQueue::default();
    let asked = (0..12).map(|renews| (1, renews)).chain((50..54).map(|renews| (2, renews)));
    let _waiting: Vec<_> = asked.map(|(line, renews)| join(&mut lines, line, Urgency::Background, renews)).collect();
    assert_eq!(order(&mut lines), [0, 1, 2, 3, 4, 5, 6, 7, 8, 50, 9, 51, 10, 52, 11, 53]);
}

#[test]
fn callers_go_round_by_round_and_before_renewals_until_their_line_is_ahead_of_its_share() {
    let mut lines = FairQueue::default();
    let greedy = (100..112).map(|renews| (1, Urgency::Foreground, renews));
    let modest = [(2, Urgency::Foreground, 200), (2, Urgency::Foreground, 201), (3, Urgency::Background, 0)];
    let _waiting: Vec<_> =
        greedy.chain(modest).map(|(line, urgency, renews)| join(&mut lines, line, urgency, renews)).collect();
    let order = order(&mut lines);
    assert_eq!(order[..6], [100, 200, 101, 201, 102, 103]);
    assert_eq!(order[9..], [107, 108, 0, 109, 110, 111]);
}

#[test]
fn a_full_queue_makes_room_for_a_shorter_line_at_the_end_of_the_longest() {
    let mut lines = FairQueue::default();
    let foreground = Urgency::Foreground;
    let mut greedy: Vec<_> = (0..3).map(|_| join(&mut lines, 1, foreground, 0)).collect();
    let _modest = join(&mut lines, 2, foreground, 0);
    assert!(!lines.make_room(1, foreground), "it is the longest itself");
    assert!(lines.make_room(2, foreground) && lines.make_room(3, foreground));
    assert_eq!(lines.waiting(), 2);
    assert!(!lines.make_room(3, foreground), "all are as short as it would be");
    let sent_away = |slot: &mut oneshot::Receiver<()>| slot.try_recv() == Err(oneshot::error::TryRecvError::Closed);
    assert_eq!(greedy.iter_mut().map(sent_away).collect::<Vec<_>>(), [false, true, true]);
}
