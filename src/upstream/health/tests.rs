use std::num::NonZeroU32;

use super::*;

const OPEN_FOR: Duration = Duration::from_secs(5);

fn breaker(failures: u32, tenants: &[&str]) -> (Breaker, Clock) {
    let clock = Clock::manual(jiff::Timestamp::UNIX_EPOCH);
    let failures = NonZeroU32::new(failures).expect("not zero");
    let breaker = Breaker::new(BreakerSettings { failures, open_for: OPEN_FOR }, clock.clone());
    breaker.add_circuits(&tenants.iter().map(|tenant| Arc::from(*tenant)).collect::<Vec<Arc<str>>>());
    (breaker, clock)
}

/// Sends a fetch that ends with this evidence; returns the tenants whose circuits opened.
fn fetch(breaker: &Breaker, tenant: &str, account: FlowId, evidence: Evidence) -> Result<Vec<Arc<str>>, CircuitOpen> {
    breaker.try_acquire(tenant, account).map(|permit| permit.end(evidence))
}

#[test]
fn failures_open_the_circuit_and_a_probe_closes_it() {
    let (breaker, clock) = breaker(3, &["t"]);
    let fail = |account| fetch(&breaker, "t", account, Evidence::Failing).map(|opened| opened.len());
    assert_eq!((fail(1), fail(1), breaker.circuit("t")), (Ok(0), Ok(0), Circuit::Closed));
    let late = breaker.try_acquire("t", 2).expect("it is closed");
    assert_eq!((fail(2), late.end(Evidence::Failing).len(), breaker.circuit("t")), (Ok(1), 0, Circuit::Open));
    clock.advance(Duration::from_secs(2));
    assert_eq!(fail(1), Err(CircuitOpen { retry_after: Duration::from_secs(3) }));
    clock.advance(Duration::from_secs(3));
    assert_eq!(breaker.circuit("t"), Circuit::HalfOpen);
    let probe = breaker.try_acquire("t", 1).expect("the probe passes");
    assert_eq!(fail(1), Err(CircuitOpen { retry_after: OPEN_FOR }));
    assert_eq!(probe.end(Evidence::Failing), [Arc::from("t")]);
    clock.advance(OPEN_FOR);
    fetch(&breaker, "t", 1, Evidence::Healthy).expect("the probe passes");
    assert_eq!(
        (breaker.circuit("t"), fail(1), fail(2)),
        (Circuit::Closed, Ok(0), Ok(0)),
        "it counts from the beginning"
    );
}

#[test]
fn what_a_question_can_provoke_neither_opens_nor_closes_a_circuit() {
    let (breaker, clock) = breaker(2, &["t"]);
    for account in 0..100 {
        assert_eq!(fetch(&breaker, "t", account, Evidence::None), Ok(vec![]));
    }
    for account in 0..2 {
        fetch(&breaker, "t", account, Evidence::Failing).expect("it is closed");
    }
    clock.advance(OPEN_FOR);
    for account in 0..3 {
        assert_eq!(fetch(&breaker, "t", account, Evidence::None), Ok(vec![]), "another request may probe at once");
        assert_eq!(breaker.circuit("t"), Circuit::HalfOpen);
    }
    fetch(&breaker, "t", 1, Evidence::Healthy).expect("the probe passes");
    assert_eq!(breaker.circuit("t"), Circuit::Closed);
}

#[test]
fn a_tenant_s_failures_are_its_own_and_an_address_is_everyone_s() {
    let (breaker, clock) = breaker(2, &["one", "other"]);
    let states = || [breaker.circuit("one"), breaker.circuit("other")];
    for account in [1, 2] {
        fetch(&breaker, "one", account, Evidence::Failing).expect("it is closed");
    }
    assert_eq!(states(), [Circuit::Open, Circuit::Closed]);
    clock.advance(OPEN_FOR);
    fetch(&breaker, "one", 1, Evidence::Healthy).expect("the probe passes");
    fetch(&breaker, "one", 1, Evidence::Unreachable).expect("it is closed");
    let opened = fetch(&breaker, "other", 7, Evidence::Unreachable).expect("it is closed");
    assert_eq!((opened.len(), states()), (2, [Circuit::Open, Circuit::Open]));
    clock.advance(OPEN_FOR);
    // One probe that connects is evidence for all of them.
    fetch(&breaker, "other", 7, Evidence::Healthy).expect("the probe passes");
    assert_eq!(states(), [Circuit::Closed, Circuit::Closed]);
}

#[test]
fn one_tenant_s_failed_connections_do_not_outweigh_the_others_successes() {
    let (breaker, _clock) = breaker(2, &["one", "other"]);
    for account in 10..15 {
        fetch(&breaker, "other", account, Evidence::Healthy).expect("it is closed");
    }
    for account in [1, 2] {
        fetch(&breaker, "one", account, Evidence::Unreachable).expect("it is closed");
    }
    assert_eq!([breaker.circuit("one"), breaker.circuit("other")], [Circuit::Open, Circuit::Closed]);
}

#[test]
fn a_probe_that_never_ends_is_followed_by_another() {
    let (breaker, clock) = breaker(1, &["t"]);
    fetch(&breaker, "t", 1, Evidence::Failing).expect("it is closed");
    clock.advance(OPEN_FOR);
    let endless = breaker.try_acquire("t", 1).expect("the probe passes");
    assert!(breaker.try_acquire("t", 1).is_err() && breaker.check("t").is_err());
    clock.advance(OPEN_FOR);
    // A probe that is dropped, since its caller disconnected, is followed by another at once.
    drop(breaker.try_acquire("t", 1).expect("the probe passes"));
    assert!(breaker.check("t").is_ok());
    fetch(&breaker, "t", 1, Evidence::Failing).expect("the probe passes");
    assert_eq!(breaker.circuit("t"), Circuit::Open);
    let _ = endless.end(Evidence::Healthy);
    assert_eq!(breaker.circuit("t"), Circuit::Closed, "the upstream answered after all");
}

#[test]
fn a_tenant_that_a_reload_adds_has_a_closed_circuit() {
    let (breaker, _clock) = breaker(1, &["t"]);
    fetch(&breaker, "t", 1, Evidence::Failing).expect("it is closed");
    breaker.add_circuits(&["t", "new"].map(Arc::from));
    assert_eq!([breaker.circuit("t"), breaker.circuit("new")], [Circuit::Open, Circuit::Closed]);
}

#[test]
fn the_circuit_of_an_idle_tenant_closes_when_its_failures_are_out_of_date() {
    for (evidence, idle, expected) in [
        (Evidence::Failing, Duration::ZERO, Circuit::HalfOpen),
        (Evidence::Failing, Duration::from_millis(9_999), Circuit::HalfOpen),
        (Evidence::Failing, WINDOW, Circuit::Closed),
        (Evidence::Unreachable, WINDOW, Circuit::Closed),
        (Evidence::Unreachable, Duration::from_hours(9), Circuit::Closed),
    ] {
        let (breaker, clock) = breaker(2, &["t", "other"]);
        for account in [1, 2] {
            fetch(&breaker, "t", account, evidence).expect("it is closed");
        }
        clock.advance(OPEN_FOR + idle);
        assert_eq!(breaker.circuit("t"), expected, "{evidence:?}, {idle:?}");
        let permit = breaker.try_acquire("t", 1).expect("it passes");
        assert_eq!(permit.is_probe(), expected == Circuit::HalfOpen);
        drop(permit);
        // It is judged from the beginning, by fetches of now.
        if expected == Circuit::Closed {
            assert_eq!(fetch(&breaker, "t", 1, evidence), Ok(vec![]));
            assert_eq!(breaker.circuit("t"), Circuit::Closed);
            assert!(!fetch(&breaker, "t", 2, evidence).expect("it is closed").is_empty());
        }
    }
}

#[test]
fn a_circuit_with_a_probe_in_flight_is_not_idle() {
    let (breaker, clock) = breaker(1, &["t"]);
    fetch(&breaker, "t", 1, Evidence::Failing).expect("it is closed");
    clock.advance(OPEN_FOR);
    let slow = breaker.try_acquire("t", 1).expect("the probe passes");
    clock.advance(OPEN_FOR + WINDOW);
    assert_eq!(breaker.circuit("t"), Circuit::HalfOpen);
    assert_eq!(slow.end(Evidence::Failing).len(), 1);
    assert_eq!(breaker.circuit("t"), Circuit::Open);
    // One without a verdict leaves the circuit half-open, for as long as it would be without it.
    clock.advance(OPEN_FOR);
    let slow = breaker.try_acquire("t", 1).expect("the probe passes");
    clock.advance(OPEN_FOR + WINDOW);
    drop(slow);
    assert_eq!(breaker.circuit("t"), Circuit::HalfOpen);
    clock.advance(WINDOW);
    assert_eq!(breaker.circuit("t"), Circuit::Closed);
}
