use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use proptest::prelude::*;
use tokio::task::JoinHandle;

use super::inner::BACKGROUND_WAIT;
use super::*;

fn limits(max_wait: Duration, max_queue: usize) -> UpstreamLimits {
    let number = |n| NonZeroU32::new(n).expect("not zero");
    UpstreamLimits { per_second: number(20), burst: number(5), max_wait, max_queue }
}

fn budget(max_wait: Duration, max_queue: usize) -> (Clock, UpstreamBudget) {
    let clock = Clock::manual(Timestamp::UNIX_EPOCH);
    (clock.clone(), UpstreamBudget::new(limits(max_wait, max_queue), clock))
}

/// Takes one request off the budget if it is free at once and no request waits.
fn try_acquire(budget: &UpstreamBudget) -> Option<BudgetSlot> {
    let (inner, now) = (&budget.0, budget.0.clock.now());
    let mut schedule = inner.schedule();
    let is_granted = schedule.queue.length() == 0 && inner.take(&mut schedule, now);
    is_granted.then(|| BudgetSlot::at_once(inner))
}

/// A flow of the only credential.
fn of(account: FlowId) -> Flow {
    Flow { credential: 0, account }
}

/// Lets all tasks run as far as they can.
async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

/// Moves the clock on in steps, and lets all tasks run after each.
async fn pass(clock: &Clock, steps: u64, step: Duration) {
    for _ in 0..steps {
        clock.advance(step);
        settle().await;
    }
}

/// The flows of granted requests, in order.
type Log = Arc<Mutex<Vec<FlowId>>>;

fn request(budget: &UpstreamBudget, flow: FlowId, log: &Log) -> JoinHandle<Result<(), Exhausted>> {
    let (budget, log) = (budget.clone(), Arc::clone(log));
    tokio::spawn(async move {
        let result = budget.acquire(of(flow), Urgency::Foreground, Moment::default()).await.map(BudgetSlot::spend);
        if result.is_ok() {
            log.lock().expect("no panic").push(flow);
        }
        result
    })
}

/// Spends what the burst allows.
async fn exhaust(budget: &UpstreamBudget) {
    for _ in 0..4 {
        assert_eq!(budget.acquire(of(0), Urgency::Foreground, Moment::default()).await.map(BudgetSlot::spend), Ok(()));
    }
}

#[tokio::test]
async fn waiting_requests_go_at_the_configured_rate_after_the_burst() {
    let (clock, budget) = budget(Duration::from_secs(10), 100);
    let log = Log::default();
    for _ in 0..30 {
        request(&budget, 1, &log);
    }
    settle().await;
    let count = || log.lock().expect("no panic").len();
    assert_eq!(count(), 4);
    // One request every 50.5 ms.
    for (milliseconds, expected) in [(500, 13), (900, 30)] {
        pass(&clock, milliseconds / 10, Duration::from_millis(10)).await;
        assert_eq!(count(), expected);
    }
}

#[tokio::test]
async fn too_long_a_wait_is_refused_at_once_with_retry_after() {
    let (_clock, budget) = budget(Duration::ZERO, 100);
    exhaust(&budget).await;
    assert_eq!(
        budget.acquire(of(0), Urgency::Foreground, Moment::default()).await.map(BudgetSlot::spend),
        Err(Exhausted { retry_after: Duration::from_micros(50_500) })
    );
}

#[tokio::test]
async fn a_cancelled_request_makes_room_in_a_full_queue() {
    let (clock, budget) = budget(Duration::from_secs(10), 1);
    let log = Log::default();
    exhaust(&budget).await;
    let waiting = request(&budget, 1, &log);
    settle().await;
    assert!(budget.acquire(of(2), Urgency::Foreground, Moment::default()).await.is_err());
    waiting.abort();
    settle().await;
    clock.advance(Duration::from_secs(1));
    settle().await;
    assert_eq!(budget.queue_depth(), QueueDepth::default());
    assert_eq!(budget.acquire(of(2), Urgency::Foreground, Moment::default()).await.map(BudgetSlot::spend), Ok(()));
}

#[tokio::test]
async fn a_greedy_flow_does_not_delay_other_flows() {
    let (clock, budget) = budget(Duration::from_mins(1), 1000);
    let log = Log::default();
    exhaust(&budget).await;
    for _ in 0..50 {
        request(&budget, 7, &log);
    }
    settle().await;
    for modest in [8, 9] {
        request(&budget, modest, &log);
    }
    settle().await;
    pass(&clock, 20, Duration::from_millis(50)).await;
    assert_eq!(log.lock().expect("no panic")[..5], [7, 8, 9, 7, 7]);
}

#[tokio::test]
async fn a_modest_flow_is_queued_where_a_greedy_one_is_refused() {
    let (_clock, budget) = budget(Duration::from_secs(1), 1000);
    let log = Log::default();
    exhaust(&budget).await;
    for _ in 0..40 {
        request(&budget, 7, &log);
    }
    settle().await;
    assert!(budget.acquire(of(7), Urgency::Foreground, Moment::default()).await.is_err(), "its flow is a second long");
    let modest = request(&budget, 8, &log);
    settle().await;
    assert!(!modest.is_finished(), "it waits, since it is soon due");
}

#[tokio::test]
async fn after_an_upstream_429_requests_pause_and_the_rate_halves() {
    let (clock, budget) = budget(Duration::from_secs(5), 100);
    let log = Log::default();
    exhaust(&budget).await;
    let early = request(&budget, 1, &log);
    settle().await;
    clock.advance(Duration::from_millis(10));
    budget.pause(Duration::from_secs(7));
    settle().await;
    pass(&clock, 49, Duration::from_millis(100)).await;
    assert!(!early.is_finished());
    pass(&clock, 1, Duration::from_millis(100)).await;
    let refused = early.await.expect("it has not panicked").expect_err("it has reached its deadline");
    assert!(refused.retry_after > Duration::from_secs(1), "{refused:?}");
    // Later requests wait for the end of the pause, and go at half the rate.
    clock.advance(Duration::from_secs(1));
    let late: Vec<_> = (0..4).map(|_| request(&budget, 2, &log)).collect();
    settle().await;
    let mut times = Vec::new();
    for step in 0..400 {
        pass(&clock, 1, Duration::from_millis(10)).await;
        times.resize(log.lock().expect("no panic").len(), step);
    }
    assert_eq!(late.iter().filter(|request| request.is_finished()).count(), 4);
    let gaps: Vec<i32> = times.windows(2).skip(times.len().saturating_sub(4)).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        gaps.iter().all(|gap| (9..=11).contains(gap)),
        "101 ms and a little less each time, in steps of 10: {gaps:?}"
    );
}

#[tokio::test]
async fn renewals_go_oldest_first_across_and_within_flows() {
    let (clock, budget) = budget(Duration::from_mins(1), 1000);
    exhaust(&budget).await;
    let order: Arc<Mutex<Vec<(FlowId, u64)>>> = Arc::default();
    let renew = |flow: FlowId, renews: u64| {
        let (budget, order) = (budget.clone(), Arc::clone(&order));
        tokio::spawn(async move {
            budget
                .acquire(of(flow), Urgency::Background, Moment::from_nanos(renews))
                .await
                .expect("it is granted")
                .spend();
            order.lock().expect("no panic").push((flow, renews));
        })
    };
    for (flow, renews) in [(1, 9), (2, 5), (1, 3)] {
        renew(flow, renews);
        settle().await;
    }
    pass(&clock, 10, Duration::from_millis(50)).await;
    // Flow 2 goes first, since flow 1 was served last, whichever joins first.
    exhaust(&budget).await;
    for flow in [1, 2] {
        renew(flow, 20);
        settle().await;
    }
    pass(&clock, 10, Duration::from_millis(50)).await;
    assert_eq!(*order.lock().expect("no panic"), [(1, 3), (2, 5), (1, 9), (2, 20), (1, 20)]);
}

/// One step of a generated history.
#[derive(Clone, Debug)]
enum Event {
    Request(FlowId, Urgency),
    Cancel(usize),
    /// Time passes, in milliseconds.
    Pass(u64),
    /// The upstream answers 429 with `Retry-After`, in seconds.
    Pause(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0_u64..5).prop_map(|flow| Event::Request(flow, Urgency::Foreground)),
        2 => (0_u64..5).prop_map(|flow| Event::Request(flow, Urgency::Background)),
        1 => (0_usize..40).prop_map(Event::Cancel),
        4 => (1_u64..400).prop_map(Event::Pass),
        1 => (1_u64..3).prop_map(Event::Pause),
    ];
    proptest::collection::vec(event, 1..120)
}

const MAX_WAIT: Duration = Duration::from_secs(4);

/// The requests of a generated history: when each was granted, and how long each waited.
#[derive(Default)]
struct History {
    granted: Arc<Mutex<Vec<Moment>>>,
    requests: Vec<JoinHandle<(Urgency, Duration)>>,
    pauses: Vec<(Moment, Moment)>,
}

impl History {
    async fn run(&mut self, events: Vec<Event>, clock: &Clock, budget: &UpstreamBudget) {
        // Background requests may wait for a minute, which passes in larger steps.
        let end = [Event::Pass(8_000), Event::Pass(60_000)];
        for event in events.into_iter().chain(end) {
            match event {
                Event::Request(flow, urgency) => self.requests.push(self.request(clock, budget, flow, urgency)),
                Event::Cancel(index) => {
                    if let Some(request) = self.requests.get(index) {
                        request.abort();
                    }
                }
                Event::Pass(milliseconds) => {
                    let step = if milliseconds > 10_000 { 100 } else { 10 };
                    pass(clock, milliseconds.div_ceil(step), Duration::from_millis(step)).await;
                }
                Event::Pause(seconds) => {
                    let pause = Duration::from_secs(seconds);
                    budget.pause(pause);
                    self.pauses.push((clock.now(), clock.now() + pause));
                }
            }
            settle().await;
        }
    }

    fn request(
        &self,
        clock: &Clock,
        budget: &UpstreamBudget,
        flow: FlowId,
        urgency: Urgency,
    ) -> JoinHandle<(Urgency, Duration)> {
        let (budget, granted, clock) = (budget.clone(), Arc::clone(&self.granted), clock.clone());
        tokio::spawn(async move {
            let begun = clock.now();
            if budget.acquire(of(flow), urgency, begun).await.map(BudgetSlot::spend).is_ok() {
                granted.lock().expect("no panic").push(clock.now());
            }
            (urgency, clock.now().since(begun))
        })
    }

    async fn check_waits(&mut self) -> Result<(), TestCaseError> {
        for request in self.requests.drain(..) {
            prop_assert!(request.is_finished(), "no request is lost");
            if let Ok((urgency, waited)) = request.await {
                let background = BACKGROUND_WAIT + Duration::from_millis(100);
                let longest = if urgency == Urgency::Foreground { MAX_WAIT } else { background };
                prop_assert!(waited <= longest, "no request waits longer than is allowed: {:?}", waited);
            }
        }
        Ok(())
    }

    fn check_grants(&self) -> Result<(), TestCaseError> {
        let granted = self.granted.lock().expect("no panic").clone();
        for (index, first) in granted.iter().enumerate() {
            for (further, last) in granted[index..].iter().enumerate() {
                // The burst and one for each interval since: a strict limiter at the upstream accepts as much.
                let allowed = 5 + last.since(*first).as_millis() / 50;
                prop_assert!((further as u128) < allowed, "{} in {:?}", further + 1, last.since(*first));
            }
            prop_assert!(!self.pauses.iter().any(|(from, to)| from < first && first < to), "none in a pause");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_window_exceeds_the_quota_and_no_request_is_lost(events in events()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (clock, budget) = budget(MAX_WAIT, 1000);
            let mut history = History::default();
            history.run(events, &clock, &budget).await;
            prop_assert_eq!(budget.queue_depth(), QueueDepth::default());
            history.check_waits().await?;
            history.check_grants()
        })?;
    }
}

#[tokio::test]
async fn two_tokens_that_are_limited_within_ten_seconds_pause_everyone_and_one_does_not() {
    let minute = Duration::from_mins(1);
    for (refusals, paused) in [
        (&[(1, 0), (1, 1), (1, 9)][..], false),
        (&[(1, 0), (2, 10)], true),
        (&[(1, 0), (2, 11)], false),
        (&[(1, 0), (1, 8), (2, 16)], true),
        (&[(1, 1), (2, 1)], true),
    ] {
        let (clock, budget) = budget(Duration::from_secs(1), 100);
        let mut past = 0;
        for (token, at) in refusals {
            clock.advance(Duration::from_secs(at - past));
            past = *at;
            budget.pause_for_tokens(*token, minute);
        }
        let status = budget.status();
        assert_eq!((status.paused_for > 0.0, status.rate_factor < 1.0), (paused, paused), "{refusals:?}");
    }
}

/// Begins to wait in the queue, and returns when the request is granted, which its task does not notice.
async fn granted_unnoticed(clock: &Clock, budget: &UpstreamBudget, urgency: Urgency) {
    let mut waiting = std::pin::pin!(budget.acquire(of(1), urgency, Moment::default()));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    pass(clock, 1, Duration::from_millis(51)).await;
}

#[tokio::test]
async fn a_slot_that_is_not_spent_goes_back_to_the_budget() {
    let (clock, budget) = budget(Duration::from_secs(5), 100);
    let is_free = || try_acquire(&budget).map(BudgetSlot::spend).is_some();
    exhaust(&budget).await;
    // The wait ends as the slot is granted: the fetch becomes urgent, or its caller disconnects.
    for urgency in [Urgency::Background, Urgency::Foreground] {
        granted_unnoticed(&clock, &budget, urgency).await;
        assert_eq!((is_free(), is_free()), (true, false), "{urgency:?}");
    }
    // A slot that was granted at once, or in the queue, is dropped.
    clock.advance(Duration::from_millis(51));
    drop(budget.acquire(of(1), Urgency::Foreground, Moment::default()).await.expect("one is free"));
    assert_eq!((is_free(), is_free()), (true, false));
    let log = Log::default();
    let waiting = request(&budget, 2, &log);
    settle().await;
    clock.advance(Duration::from_millis(51));
    waiting.abort();
    settle().await;
    assert_eq!((is_free(), is_free()), (true, false));
}

#[tokio::test]
async fn a_slot_that_comes_back_is_granted_to_the_next_in_the_queue() {
    let (clock, budget) = budget(Duration::from_secs(5), 100);
    exhaust(&budget).await;
    clock.advance(Duration::from_millis(51));
    let held = try_acquire(&budget).expect("one is free");
    let log = Log::default();
    request(&budget, 1, &log);
    settle().await;
    assert!(log.lock().expect("no panic").is_empty());
    drop(held);
    settle().await;
    assert_eq!(*log.lock().expect("no panic"), [1], "no time has passed");
    // After a pause nothing of the burst is left, whatever comes back.
    clock.advance(Duration::from_secs(1));
    let held = try_acquire(&budget).expect("one is free");
    budget.pause(Duration::from_secs(1));
    drop(held);
    clock.advance(Duration::from_secs(1));
    let is_free = || try_acquire(&budget).map(BudgetSlot::spend).is_some();
    assert_eq!((is_free(), is_free()), (true, false));
}

#[tokio::test]
async fn a_flow_that_gives_its_slot_back_has_its_turn_again() {
    let (clock, budget) = budget(Duration::from_mins(1), 1000);
    exhaust(&budget).await;
    let log = Log::default();
    for _ in 0..20 {
        granted_unnoticed(&clock, &budget, Urgency::Foreground).await;
        try_acquire(&budget).expect("it is back").spend();
    }
    for flow in [2, 1, 2, 1] {
        request(&budget, flow, &log);
        settle().await;
    }
    pass(&clock, 10, Duration::from_millis(50)).await;
    assert_eq!(*log.lock().expect("no panic"), [1, 2, 1, 2], "it is not 20 rounds ahead");
}
