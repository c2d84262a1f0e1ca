use proptest::prelude::*;

use super::super::rounds::LEEWAY;
use super::*;

/// One step of a generated history.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A request joins the flow, to renew a response of this request time.
    Push(FlowId, Urgency, u64),
    /// The request with this number is cancelled.
    Cancel(usize),
    /// The next request receives a permit.
    Pop,
}

fn urgency() -> impl Strategy<Value = Urgency> {
    prop_oneof![Just(Urgency::Foreground), Just(Urgency::Background)]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        // Flow 0 is greedy.
        4 => (urgency(), 0_u64..50).prop_map(|(urgency, renews)| Event::Push(0, urgency, renews)),
        4 => (1_u64..6, urgency(), 0_u64..50).prop_map(|(flow, urgency, renews)| Event::Push(flow, urgency, renews)),
        1 => (0_usize..100).prop_map(Event::Cancel),
        4 => Just(Event::Pop),
    ];
    proptest::collection::vec(event, 1..200)
}

/// A request as the test tracks it.
struct Tracked {
    flow: FlowId,
    permit: Option<oneshot::Receiver<Grant>>,
    /// Permits that each flow has received since this request joined.
    permits: [u64; 6],
}

/// Gives a permit to the next request, and checks that no flow is too far ahead of its flow.
fn serve(queue: &mut FairQueue, tracked: &mut [Tracked]) -> Result<bool, TestCaseError> {
    let Some(request) = queue.pop() else { return Ok(false) };
    prop_assert!(request.permit.send(Grant::Local).is_ok(), "no cancelled request is served");
    let received = |tracked: &mut Tracked| tracked.permit.as_mut().is_some_and(|permit| permit.try_recv().is_ok());
    let index = tracked.iter_mut().position(received).expect("the request is tracked");
    let flow = tracked[index].flow;
    tracked[index].permit = None;
    let own = tracked[index].permits[usize::try_from(flow).expect("small")];
    for (other, permits) in tracked[index].permits.iter().enumerate() {
        prop_assert!(
            *permits <= own + 2 + 2 * LEEWAY,
            "flow {other} received {permits} permits while a request of flow {flow} saw {own} of its own flow"
        );
    }
    let flow = usize::try_from(flow).expect("small");
    tracked.iter_mut().filter(|tracked| tracked.permit.is_some()).for_each(|tracked| tracked.permits[flow] += 1);
    Ok(true)
}

fn check_fairness(events: Vec<Event>) -> Result<(), TestCaseError> {
    let mut queue = FairQueue::default();
    let mut tracked: Vec<Tracked> = Vec::new();
    let mut served = 0;
    for event in events {
        match event {
            Event::Push(flow, urgency, renews) => {
                let (permit, receiver) = oneshot::channel();
                let deadline = Moment::from_nanos(u64::MAX);
                queue.push(flow, urgency, QueuedRequest { permit, deadline, renews: Moment::from_nanos(renews) });
                tracked.push(Tracked { flow, permit: Some(receiver), permits: [0; 6] });
            }
            Event::Cancel(index) => {
                if let Some(tracked) = tracked.get_mut(index) {
                    tracked.permit = None;
                }
            }
            Event::Pop => served += usize::from(serve(&mut queue, &mut tracked)?),
        }
        let open = tracked.iter().filter(|tracked| tracked.permit.is_some()).count();
        prop_assert_eq!(queue.depth().total(), open, "no request is lost");
    }
    while serve(&mut queue, &mut tracked)? {
        served += 1;
    }
    prop_assert!(tracked.iter().all(|tracked| tracked.permit.is_none()), "every open request is served, {}", served);
    queue.remove_expired(Moment::default());
    prop_assert_eq!(queue.length(), 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_flow_gets_further_ahead_than_the_leeway(events in events()) {
        check_fairness(events)?;
    }
}

fn push(queue: &mut FairQueue, flow: FlowId, urgency: Urgency, renews: u64) -> oneshot::Receiver<Grant> {
    let (permit, receiver) = oneshot::channel();
    let request = QueuedRequest { permit, deadline: Moment::from_nanos(100), renews: Moment::from_nanos(renews) };
    queue.push(flow, urgency, request);
    receiver
}

fn order(queue: &mut FairQueue) -> Vec<u64> {
    std::iter::from_fn(|| queue.pop()).map(|request| request.renews.as_nanos()).collect()
}

#[test]
fn the_oldest_renewal_goes_first_within_the_leeway() {
    let mut queue = FairQueue::default();
    let renewals = (0..12).map(|renews| (1, renews)).chain((50..54).map(|renews| (2, renews)));
    let _permits: Vec<_> = renewals.map(|(flow, renews)| push(&mut queue, flow, Urgency::Background, renews)).collect();
    assert_eq!(order(&mut queue), [0, 1, 2, 3, 4, 5, 6, 7, 8, 50, 9, 51, 10, 52, 11, 53]);
}

#[test]
fn foreground_goes_round_by_round_before_background_within_the_leeway() {
    let mut queue = FairQueue::default();
    let greedy = (100..112).map(|renews| (1, Urgency::Foreground, renews));
    let modest = [(2, Urgency::Foreground, 200), (2, Urgency::Foreground, 201), (3, Urgency::Background, 0)];
    let _permits: Vec<_> =
        greedy.chain(modest).map(|(flow, urgency, renews)| push(&mut queue, flow, urgency, renews)).collect();
    let order = order(&mut queue);
    assert_eq!(order[..6], [100, 200, 101, 201, 102, 103]);
    assert_eq!(order[9..], [107, 108, 0, 109, 110, 111]);
}

#[test]
fn a_full_queue_drops_the_last_request_of_the_longest_flow() {
    let mut queue = FairQueue::default();
    let foreground = Urgency::Foreground;
    let mut greedy: Vec<_> = (0..3).map(|_| push(&mut queue, 1, foreground, 0)).collect();
    let _modest = push(&mut queue, 2, foreground, 0);
    assert!(!queue.make_room(1, foreground), "flow 1 is the longest itself");
    assert!(queue.make_room(2, foreground) && queue.make_room(3, foreground));
    assert_eq!(queue.length(), 2);
    assert!(!queue.make_room(3, foreground), "no flow is longer than flow 3 would be");
    let dropped =
        |permit: &mut oneshot::Receiver<Grant>| permit.try_recv() == Err(oneshot::error::TryRecvError::Closed);
    assert_eq!(greedy.iter_mut().map(dropped).collect::<Vec<_>>(), [false, true, true]);
}
