//! Dead connections to Refold, as after a fail-over that drops packets, while the gateway is busy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::support::counted::{
    Counters, answer_all, ask_at_once, assert_answered, falls_silent, gateway, read_head, suspicious,
};
use crate::support::{Configuration, Gateway, PendingAnswer, manual_clock, until};

/// Takes requests and never answers, like a route that drops packets, on the connections up to number `dead`, once they have
/// answered one request each; later ones are fine.
async fn dead_up_to(dead: usize) -> (SocketAddr, Arc<Counters>, watch::Sender<bool>) {
    falls_silent(dead, move |mut stream, number, counters| async move {
        if number > dead {
            return answer_all(stream, number, counters).await;
        }
        while read_head(&mut stream, &counters).await {}
    })
    .await
}

/// Leaves a read unanswered on each of `dead` connections.
async fn unanswered(
    gateway: &Gateway,
    counters: &Counters,
    gate: &watch::Sender<bool>,
    dead: usize,
) -> Vec<PendingAnswer> {
    let first = ask_at_once(gateway, 1..dead + 1);
    until(|| counters.requests() == dead).await;
    gate.send_replace(true);
    assert_answered(first).await;
    let unanswered = ask_at_once(gateway, 101..101 + dead);
    until(|| counters.requests() == 2 * dead).await;
    unanswered
}

#[tokio::test]
async fn reads_on_dead_connections_move_while_newer_connections_answer() {
    for dead in [1, 2, 6] {
        let (address, counters, gate) = dead_up_to(dead).await;
        let gateway = gateway(address, suspicious);
        let unanswered = unanswered(&gateway, &counters, &gate, dead).await;
        let busy = async {
            for page in 1000.. {
                assert_eq!(gateway.list("acme-2", &format!("page={page}")).await.status, 200);
            }
        };
        tokio::select! {
            () = assert_answered(unanswered) => {}
            () = busy => {}
        }
        until(|| counters.open() == counters.opened() - dead).await;
    }
}

#[tokio::test]
async fn reads_on_dead_connections_move_while_others_wait_for_the_budget() {
    const OTHERS: usize = 60;
    for dead in [1_u32, 2, 4] {
        let (address, counters, gate) = dead_up_to(dead as usize).await;
        let config = suspicious(Configuration::new()).upstream(address).one_worker();
        let clock = manual_clock();
        // The burst is spent when the dead connections have a read each, as one request of it is kept in reserve.
        let gateway = Gateway::start(&config.upstream_limit(20, 2 * dead + 1).max_wait("1m"), &clock);
        let unanswered = unanswered(&gateway, &counters, &gate, dead as usize).await;
        let others = (0..OTHERS).map(|name| gateway.spawn_list("acme-2", &format!("workflow_name={name}")));
        let others: Vec<_> = others.collect();
        // The probe waits for its turn, too.
        gateway.until_waiting(OTHERS + 1).await;
        let grants = async {
            loop {
                let before = counters.requests();
                // One more request at 20 per second, of which the budget keeps a little in reserve.
                clock.advance(Duration::from_millis(51));
                until(|| counters.requests() > before).await;
            }
        };
        tokio::select! {
            () = assert_answered(unanswered) => {}
            () = grants => {}
        }
        assert!(gateway.waiting().callers > OTHERS / 2, "they took their turns");
        drop(others);
    }
}
