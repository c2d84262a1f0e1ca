use std::num::NonZeroU32;
use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;
use tokio::task::JoinHandle;

use super::*;

fn limits(max_wait: Duration, max_queue: usize) -> UpstreamLimits {
    let number = |n| NonZeroU32::new(n).expect("not zero");
    UpstreamLimits { per_second: number(20), burst: number(5), max_wait, max_queue }
}

fn budget(max_wait: Duration, max_queue: usize) -> (Clock, UpstreamBudget) {
    let clock = Clock::manual(Timestamp::UNIX_EPOCH);
    (clock.clone(), UpstreamBudget::new(limits(max_wait, max_queue), clock))
}

/// Lets all tasks run as far as they can.
async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

/// Who was let through, in order.
type Log = Arc<Mutex<Vec<Line>>>;

fn ask(budget: &UpstreamBudget, line: Line, log: &Log) -> JoinHandle<Result<(), Exhausted>> {
    let (budget, log) = (budget.clone(), Arc::clone(log));
    tokio::spawn(async move {
        let result = budget.acquire(line, Urgency::Foreground, Moment::default()).await;
        if result.is_ok() {
            log.lock().expect("no panic").push(line);
        }
        result
    })
}

/// Spends what the burst allows.
async fn exhaust(budget: &UpstreamBudget) {
    for _ in 0..4 {
        assert_eq!(budget.acquire(0, Urgency::Foreground, Moment::default()).await, Ok(()));
    }
}

#[tokio::test]
async fn those_who_wait_go_at_the_published_rate_after_the_burst() {
    let (clock, budget) = budget(Duration::from_secs(10), 100);
    let log = Log::default();
    for _ in 0..30 {
        ask(&budget, 1, &log);
    }
    settle().await;
    let count = || log.lock().expect("no panic").len();
    assert_eq!(count(), 4);
    // A slot every 50.5 ms.
    for (step, expected) in [(500, 13), (900, 30)] {
        for _ in 0..step / 10 {
            clock.advance(Duration::from_millis(10));
            settle().await;
        }
        assert_eq!(count(), expected);
    }
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_refused_at_once_with_the_time_of_the_next_slot() {
    let (_clock, budget) = budget(Duration::ZERO, 100);
    exhaust(&budget).await;
    assert_eq!(
        budget.acquire(0, Urgency::Foreground, Moment::default()).await,
        Err(Exhausted { retry_after: Duration::from_micros(50_500) })
    );
}

#[tokio::test]
async fn the_queue_is_bounded_and_a_waiter_that_leaves_makes_room() {
    let (clock, budget) = budget(Duration::from_secs(10), 1);
    let log = Log::default();
    exhaust(&budget).await;
    let waiter = ask(&budget, 1, &log);
    settle().await;
    assert!(budget.acquire(2, Urgency::Foreground, Moment::default()).await.is_err());
    waiter.abort();
    settle().await;
    clock.advance(Duration::from_secs(1));
    settle().await;
    assert_eq!(budget.waiting(), Waiting::default());
    assert_eq!(budget.acquire(2, Urgency::Foreground, Moment::default()).await, Ok(()));
}

#[tokio::test]
async fn lines_are_served_in_turn_so_a_greedy_one_waits_for_itself() {
    let (clock, budget) = budget(Duration::from_mins(1), 1000);
    let log = Log::default();
    exhaust(&budget).await;
    for _ in 0..50 {
        ask(&budget, 7, &log);
    }
    settle().await;
    for modest in [8, 9] {
        ask(&budget, modest, &log);
    }
    settle().await;
    for _ in 0..20 {
        clock.advance(Duration::from_millis(50));
        settle().await;
    }
    assert_eq!(log.lock().expect("no panic")[..5], [7, 8, 9, 7, 7]);
}

#[tokio::test]
async fn a_modest_line_is_let_in_where_a_greedy_one_is_refused() {
    let (_clock, budget) = budget(Duration::from_secs(1), 1000);
    let log = Log::default();
    exhaust(&budget).await;
    for _ in 0..40 {
        ask(&budget, 7, &log);
    }
    settle().await;
    assert!(budget.acquire(7, Urgency::Foreground, Moment::default()).await.is_err(), "its line is a second long");
    let modest = ask(&budget, 8, &log);
    settle().await;
    assert!(!modest.is_finished(), "it waits, for its turn is soon");
}

#[tokio::test]
async fn an_upstream_429_holds_those_who_wait_sends_away_whose_time_is_over_and_halves_the_pace() {
    let (clock, budget) = budget(Duration::from_secs(5), 100);
    let log = Log::default();
    exhaust(&budget).await;
    let early = ask(&budget, 1, &log);
    settle().await;
    clock.advance(Duration::from_millis(10));
    budget.hold(Duration::from_secs(7));
    settle().await;
    for _ in 0..49 {
        clock.advance(Duration::from_millis(100));
        settle().await;
    }
    assert!(!early.is_finished());
    clock.advance(Duration::from_millis(100));
    settle().await;
    let refused = early.await.expect("it has not died").expect_err("its time is over");
    assert!(refused.retry_after > Duration::from_secs(1), "{refused:?}");
    // Those who come later wait for the end of the pause, and go at half the pace.
    clock.advance(Duration::from_secs(1));
    let late: Vec<_> = (0..4).map(|_| ask(&budget, 2, &log)).collect();
    settle().await;
    let mut times = Vec::new();
    for step in 0..400 {
        clock.advance(Duration::from_millis(10));
        settle().await;
        times.resize(log.lock().expect("no panic").len(), step);
    }
    assert_eq!(late.iter().filter(|waiter| waiter.is_finished()).count(), 4);
    let gaps: Vec<i32> = times.windows(2).skip(times.len().saturating_sub(4)).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        gaps.iter().all(|gap| (9..=11).contains(gap)),
        "101 ms and a little less each time, in steps of 10: {gaps:?}"
    );
}

/// What can happen to a budget.
#[derive(Clone, Debug)]
enum Event {
    Ask(Line, Urgency),
    Leave(usize),
    Pass(u64),
    Refused(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0_u64..5).prop_map(|line| Event::Ask(line, Urgency::Foreground)),
        2 => (0_u64..5).prop_map(|line| Event::Ask(line, Urgency::Background)),
        1 => (0_usize..40).prop_map(Event::Leave),
        4 => (1_u64..400).prop_map(Event::Pass),
        1 => (1_u64..3).prop_map(Event::Refused),
    ];
    proptest::collection::vec(event, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_window_holds_more_than_is_granted_and_nobody_is_lost(events in events()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let max_wait = Duration::from_secs(4);
            let (clock, budget) = budget(max_wait, 1000);
            let granted: Arc<Mutex<Vec<Moment>>> = Arc::default();
            let mut waiters = Vec::new();
            let mut pauses: Vec<(Moment, Moment)> = Vec::new();
            let ask = |line, urgency| {
                let (budget, granted, clock) = (budget.clone(), Arc::clone(&granted), clock.clone());
                tokio::spawn(async move {
                    let begun = clock.now();
                    if budget.acquire(line, urgency, begun).await.is_ok() {
                        granted.lock().expect("no panic").push(clock.now());
                    }
                    (urgency, clock.now().since(begun))
                })
            };
            // Renewals may wait for a minute; that passes in larger steps.
            let end = [Event::Pass(8_000), Event::Pass(60_000)];
            for event in events.into_iter().chain(end) {
                match event {
                    Event::Ask(line, urgency) => waiters.push(ask(line, urgency)),
                    Event::Leave(index) => {
                        if let Some(waiter) = waiters.get(index) {
                            waiter.abort();
                        }
                    }
                    Event::Pass(milliseconds) => {
                        let step = if milliseconds > 10_000 { 100 } else { 10 };
                        for _ in 0..milliseconds.div_ceil(step) {
                            clock.advance(Duration::from_millis(step));
                            settle().await;
                        }
                    }
                    Event::Refused(seconds) => {
                        let pause = Duration::from_secs(seconds);
                        budget.hold(pause);
                        pauses.push((clock.now(), clock.now() + pause));
                    }
                }
                settle().await;
            }
            prop_assert_eq!(budget.waiting(), Waiting::default());
            for waiter in waiters {
                prop_assert!(waiter.is_finished(), "nobody is lost");
                if let Ok((urgency, waited)) = waiter.await {
                    let renewal = BACKGROUND_WAIT + Duration::from_millis(100);
                    let longest = if urgency == Urgency::Foreground { max_wait } else { renewal };
                    prop_assert!(waited <= longest, "nobody waits longer than is allowed: {:?}", waited);
                }
            }
            let granted = granted.lock().expect("no panic").clone();
            for (index, first) in granted.iter().enumerate() {
                for (further, last) in granted[index..].iter().enumerate() {
                    // The burst, and one for each interval since: what a strict limiter at the upstream lets pass.
                    let allowed = 5 + last.since(*first).as_millis() / 50;
                    prop_assert!((further as u128) < allowed, "{} in {:?}", further + 1, last.since(*first));
                }
                prop_assert!(!pauses.iter().any(|(from, to)| from < first && first < to), "none in a pause");
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn within_a_line_the_oldest_goes_first_and_the_line_that_waited_longest_before_the_others() {
    let (clock, budget) = budget(Duration::from_mins(1), 1000);
    exhaust(&budget).await;
    let order: Arc<Mutex<Vec<(Line, u64)>>> = Arc::default();
    let ask = |line: Line, renews: u64| {
        let (budget, order) = (budget.clone(), Arc::clone(&order));
        tokio::spawn(async move {
            budget.acquire(line, Urgency::Background, Moment::from_nanos(renews)).await.expect("it is served");
            order.lock().expect("no panic").push((line, renews));
        })
    };
    let pass = async || {
        for _ in 0..10 {
            clock.advance(Duration::from_millis(50));
            settle().await;
        }
    };
    for (line, renews) in [(1, 9), (2, 5), (1, 3)] {
        ask(line, renews);
        settle().await;
    }
    pass().await;
    // Line 2 was served before line 1 was for the last time, whoever joins first now.
    exhaust(&budget).await;
    for line in [1, 2] {
        ask(line, 20);
        settle().await;
    }
    pass().await;
    assert_eq!(*order.lock().expect("no panic"), [(1, 3), (2, 5), (1, 9), (2, 20), (1, 20)]);
}
