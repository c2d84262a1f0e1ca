//! One fetch for everybody who asks the same, whoever leaves meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use postern::clock::Clock;
use postern::limit::QueueDepth;
use serde_json::json;
use tokio::sync::{Semaphore, watch};

use crate::harness::{
    Answer, EXECUTIONS, Gateway, NEXT_ORG_KEY, ORG_KEY, Setup, as_account, configuration, http_upstream, page_of, until,
};
use crate::issuer::{token_of, validating};

/// A gateway in front of an upstream that answers when it is told to, with the number of the request.
struct Gated {
    gateway: Arc<Gateway>,
    clock: Clock,
    requests: Arc<AtomicU64>,
    open: watch::Sender<bool>,
}

impl Gated {
    async fn start(status: u16) -> Self {
        let requests = Arc::new(AtomicU64::new(0));
        let open = watch::Sender::new(false);
        let (counted, gate) = (Arc::clone(&requests), open.clone());
        let upstream = http_upstream(move |_| {
            let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
            let mut gate = gate.subscribe();
            async move {
                gate.wait_for(|open| *open).await.expect("the test holds the gate");
                let mut response = page_of(&json!({ "_id": number, "status": "COMPLETED" }));
                *response.status_mut() = StatusCode::from_u16(status).expect("a status");
                response
            }
        })
        .await;
        let Setup { clock, top, tenant, .. } = Setup::default();
        let tenant = format!("request_directives = [\"no-cache\", \"max-age\"]\n{tenant}");
        let gateway = Arc::new(Gateway::start(upstream, &top, &tenant, clock.clone()));
        Self { gateway, clock, requests, open }
    }

    fn ask(&self) -> tokio::task::JoinHandle<Answer> {
        self.ask_for("")
    }

    /// Asks with a `Cache-Control`.
    fn ask_for(&self, directive: &'static str) -> tokio::task::JoinHandle<Answer> {
        let gateway = Arc::clone(&self.gateway);
        tokio::spawn(async move {
            gateway.get(EXECUTIONS, &[as_account("acme-1").as_slice(), &[("cache-control", directive)]].concat()).await
        })
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

/// How many requests of a linked account have come in so far.
fn arrived(gateway: &Gateway, clock: &Clock, account: &str) -> u64 {
    let busiest = gateway.server().gateway().tenants()[0].busiest(1000, clock.now());
    busiest.iter().find(|busy| busy.linked_account.as_deref() == Some(account)).map_or(0, |busy| busy.requests)
}

#[tokio::test]
async fn a_thousand_callers_cost_one_fetch_also_when_half_of_them_hang_up() {
    let gated = Gated::start(200).await;
    // The first of them makes the fetch; it is among those who leave.
    let mut callers = vec![gated.ask()];
    until(|| gated.requests() == 1).await;
    callers.extend((1..1000).map(|_| gated.ask()));
    // So that those who leave have asked.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let stay = callers.split_off(500);
    for caller in callers {
        caller.abort();
    }
    tokio::task::yield_now().await;
    gated.open.send_replace(true);
    for caller in stay {
        let answer = caller.await.expect("nobody has ended it");
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.json()["docs"][0]["_id"], 1);
    }
    assert_eq!(gated.requests(), 1);
    let later = gated.ask().await.expect("nobody has ended it");
    assert!(later.header("cache-status").starts_with("postern; hit"), "{later:?}");
}

#[tokio::test]
async fn a_failure_is_told_to_all_who_wait_and_the_next_one_tries_again() {
    let gated = Gated::start(500).await;
    let mut callers = vec![gated.ask()];
    until(|| gated.requests() == 1).await;
    callers.extend((0..20).map(|_| gated.ask()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    gated.open.send_replace(true);
    for caller in callers {
        assert_eq!(caller.await.expect("nobody has ended it").status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    let before = gated.requests();
    assert_eq!(gated.ask().await.expect("nobody has ended it").status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(gated.requests(), before + 1);
}

#[tokio::test]
async fn who_wants_a_newer_answer_than_the_one_under_way_gets_it_and_those_who_want_it_share_it() {
    let gated = Gated::start(200).await;
    let first = gated.ask();
    until(|| gated.requests() == 1).await;
    gated.clock.advance(Duration::from_secs(3));
    let newer: Vec<_> = ["no-cache", "max-age=2", "no-cache"].map(|directive| gated.ask_for(directive)).into();
    let old_enough = gated.ask_for("max-age=3");
    until(|| arrived(&gated.gateway, &gated.clock, "acme-1") == 5).await;
    gated.open.send_replace(true);
    for (caller, number) in [(first, 1), (old_enough, 1)] {
        assert_eq!(caller.await.expect("nobody has ended it").json()["docs"][0]["_id"], number);
    }
    for caller in newer {
        let answer = caller.await.expect("nobody has ended it");
        assert_eq!(answer.json()["docs"][0]["_id"], 2, "{answer:?}");
        assert_eq!(answer.header("age"), "0");
    }
    assert_eq!(gated.requests(), 2);
}

#[tokio::test]
async fn a_fetch_that_was_not_asked_yet_ends_with_its_last_caller() {
    let requests = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&requests);
    let upstream = http_upstream(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { page_of(&json!({ "status": "COMPLETED" })) }
    })
    .await;
    let Setup { clock, tenant, .. } = Setup::default();
    let top = "[limits.upstream]\nper_second = 1\nburst = 2\nmax_wait = \"10s\"\n";
    let gateway = Arc::new(Gateway::start(upstream, top, &tenant, clock.clone()));
    let ask = |page: u32| {
        let gateway = Arc::clone(&gateway);
        tokio::spawn(async move { gateway.get(&format!("{EXECUTIONS}?page={page}"), &as_account("acme-1")).await })
    };
    let waiting = || gateway.server().gateway().tenants()[0].upstream_budget().queue_depth().foreground;
    assert_eq!(ask(1).await.expect("it is answered").status, StatusCode::OK);
    let stays = ask(2);
    until(|| waiting() == 1).await;
    let (leaves, also_leaves) = (ask(3), ask(3));
    until(|| waiting() == 2).await;
    // One of two is not the last.
    leaves.abort();
    clock.advance(Duration::from_millis(1020));
    assert_eq!(stays.await.expect("nobody has ended it").status, StatusCode::OK);
    assert_eq!(waiting(), 1);
    also_leaves.abort();
    until(|| waiting() == 0).await;
    clock.advance(Duration::from_secs(5));
    assert_eq!(ask(4).await.expect("it is answered").status, StatusCode::OK);
    assert_eq!(requests.load(Ordering::SeqCst), 3, "nobody has asked for what nobody waits for");
}

#[tokio::test]
async fn a_renewal_that_somebody_begins_to_wait_for_goes_before_those_that_nobody_waits_for() {
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    let upstream = http_upstream(move |request| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        seen.lock().expect("no panic").push(query[..6].to_owned());
        async { page_of(&json!({ "status": "COMPLETED" })) }
    })
    .await;
    let Setup { clock, tenant, .. } = Setup::default();
    let top =
        "[limits.upstream]\nper_second = 1\nburst = 2\nmax_wait = \"10s\"\n[cache.stale]\nwhile_revalidate = \"10s\"\n";
    let tenant = format!("request_directives = [\"max-age\"]\n{tenant}");
    let gateway = Arc::new(Gateway::start(upstream, top, &tenant, clock.clone()));
    let ask = |page: u32, directive: &'static str| {
        let gateway = Arc::clone(&gateway);
        let headers = [as_account("acme-1").as_slice(), &[("cache-control", directive)]].concat();
        tokio::spawn(async move { gateway.get(&format!("{EXECUTIONS}?page={page}"), &headers).await })
    };
    let waiting = || gateway.server().gateway().tenants()[0].upstream_budget().queue_depth();
    for page in 1..=4 {
        ask(page, "").await.expect("it is answered");
        clock.advance(Duration::from_millis(1020));
    }
    // All become stale. The first takes the slot there is, the others wait behind their readers' backs.
    clock.advance(Duration::from_secs(5));
    for page in 1..=4 {
        let answer = ask(page, "").await.expect("it is answered");
        assert!(answer.header("cache-status").starts_with("postern; hit; ttl=-"), "{answer:?}");
        until(|| order.lock().expect("no panic").len() == 5).await;
    }
    until(|| waiting() == QueueDepth { foreground: 0, background: 3 }).await;
    order.lock().expect("no panic").clear();
    let caller = ask(4, "max-age=0");
    until(|| waiting() == QueueDepth { foreground: 1, background: 2 }).await;
    for _ in 0..3 {
        let before = order.lock().expect("no panic").len();
        clock.advance(Duration::from_millis(1020));
        until(|| order.lock().expect("no panic").len() > before).await;
    }
    assert_eq!(caller.await.expect("nobody has ended it").header("cache-status"), "postern; fwd=request; stored");
    assert_eq!(*order.lock().expect("no panic"), ["page=4", "page=2", "page=3"]);
}

#[tokio::test]
async fn whoever_comes_and_leaves_only_what_somebody_waits_for_is_asked_and_nobody_is_lost() {
    let asked = Arc::new(std::sync::Mutex::new(Vec::<u32>::new()));
    let seen = Arc::clone(&asked);
    let upstream = http_upstream(move |request| {
        let page = request.uri().query().and_then(|query| query.split('&').next()?.strip_prefix("page=")?.parse().ok());
        seen.lock().expect("no panic").push(page.expect("a page"));
        async { page_of(&json!({ "status": "COMPLETED" })) }
    })
    .await;
    let Setup { clock, tenant, .. } = Setup::default();
    let top = "[limits.upstream]\nper_second = 1\nburst = 2\nmax_wait = \"1h\"\n[cache]\nderive = false\n";
    let gateway = Arc::new(Gateway::start(upstream, top, &tenant, clock.clone()));
    // Each question has an account of its own, so that those who ask it share one fetch.
    let ask = |page: u32| {
        let gateway = Arc::clone(&gateway);
        tokio::spawn(async move {
            let account = format!("account-{page}");
            gateway.get(&format!("{EXECUTIONS}?page={page}"), &as_account(&account)).await.status
        })
    };
    let waiting = || gateway.server().gateway().tenants()[0].upstream_budget().queue_depth();
    let arrived = |page: u32| arrived(&gateway, &clock, &format!("account-{page}"));
    let mut dice = fastrand::Rng::with_seed(11);
    for round in 0..25 {
        // The slot there is goes first, so that all others wait.
        clock.advance(Duration::from_secs(10));
        let first = round * 100;
        assert_eq!(ask(first + 1).await.expect("it is answered"), StatusCode::OK);
        asked.lock().expect("no panic").clear();
        let questions = dice.u32(1..8);
        let mut callers: Vec<_> = Vec::new();
        for question in 0..questions {
            let page = first + 2 + question;
            let many = dice.u32(1..4);
            callers.extend((0..many).map(|_| (page, ask(page))));
            // All of them: one that is only on its way when its caller leaves would be asked for all the same.
            until(|| arrived(page) == u64::from(many)).await;
            until(|| waiting().foreground == usize::try_from(question + 1).expect("few")).await;
        }
        let (leave, stay): (Vec<_>, Vec<_>) = callers.into_iter().partition(|_| dice.bool());
        let mut wanted: Vec<u32> = stay.iter().map(|(page, _)| *page).collect();
        wanted.dedup();
        for (_, caller) in &leave {
            caller.abort();
        }
        until(|| waiting() == QueueDepth { foreground: wanted.len(), background: 0 }).await;
        let mut stay: Vec<_> = stay.into_iter().map(|(_, caller)| caller).collect();
        while stay.iter().any(|caller| !caller.is_finished()) {
            clock.advance(Duration::from_millis(100));
            tokio::task::yield_now().await;
        }
        for caller in stay.drain(..) {
            assert_eq!(caller.await.expect("nobody has ended it"), StatusCode::OK);
        }
        let mut served = std::mem::take(&mut *asked.lock().expect("no panic"));
        served.sort_unstable();
        assert_eq!(served, wanted, "round {round}");
    }
}

#[tokio::test]
async fn a_fetch_that_began_earlier_and_ends_later_does_not_undo_a_newer_one() {
    let (asked, gate) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
    let (count, held) = (Arc::clone(&asked), Arc::clone(&gate));
    let upstream = http_upstream(move |_| {
        let (count, held) = (Arc::clone(&count), Arc::clone(&held));
        async move {
            let version = count.fetch_add(1, Ordering::SeqCst) + 1;
            if version == 1 {
                held.acquire().await.expect("it is open").forget();
            }
            page_of(&json!({ "status": "COMPLETED", "version": version }))
        }
    })
    .await;
    let Setup { clock, tenant, top, .. } = Setup::default();
    let top = format!("{top}\n[cache]\ncollapse = false\n");
    let gateway = Arc::new(Gateway::start(upstream, &top, &tenant, clock.clone()));
    let ask = || {
        let gateway = Arc::clone(&gateway);
        async move {
            let answer = gateway.get(EXECUTIONS, &as_account("acme-1")).await;
            (answer.json()["docs"][0]["version"].as_u64(), answer.header("cache-status").to_owned())
        }
    };
    let first = tokio::spawn(ask());
    until(|| asked.load(Ordering::SeqCst) == 1).await;
    clock.advance(Duration::from_millis(1));
    assert_eq!(ask().await, (Some(2), "postern; fwd=uri-miss; stored".to_owned()));
    gate.add_permits(1);
    assert_eq!(first.await.expect("nobody has ended it").0, Some(1));
    assert_eq!(ask().await, (Some(2), "postern; hit; ttl=5".to_owned()));
}

#[tokio::test]
async fn what_refold_says_of_one_key_is_not_told_to_those_who_have_shown_another() {
    let asked = Arc::new(AtomicU64::new(0));
    let open = watch::Sender::new(false);
    let (counted, gate) = (Arc::clone(&asked), open.clone());
    let upstream = http_upstream(move |request| {
        counted.fetch_add(1, Ordering::SeqCst);
        let revoked = request.headers()["x-api-key"] == ORG_KEY;
        let mut gate = gate.subscribe();
        async move {
            gate.wait_for(|open| *open).await.expect("the test holds the gate");
            let mut response = page_of(&json!({ "status": "COMPLETED" }));
            if revoked {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            response
        }
    })
    .await;
    let Setup { clock, top, .. } = Setup::default();
    let top = top.replace("while_revalidate = \"0s\"", "while_revalidate = \"1h\"");
    let text = validating(&configuration(upstream, &top, ""));
    let gateway = Arc::new(Gateway::start_with(&text, clock.clone()));
    let ask = |credential: &str| {
        let (gateway, credential) = (Arc::clone(&gateway), credential.to_owned());
        tokio::spawn(async move {
            let name = if credential.starts_with("Bearer ") { "authorization" } else { "x-api-key" };
            gateway.get(EXECUTIONS, &[(name, &credential), ("linked_account_id", "a")]).await
        })
    };
    let revoked = ask(ORG_KEY);
    until(|| asked.load(Ordering::SeqCst) == 1).await;
    let good = [ask(NEXT_ORG_KEY), ask(&token_of("a"))];
    until(|| arrived(&gateway, &clock, "a") == 3).await;
    open.send_replace(true);
    assert_eq!(revoked.await.expect("nobody has ended it").status, StatusCode::UNAUTHORIZED);
    for caller in good {
        assert_eq!(caller.await.expect("nobody has ended it").status, StatusCode::OK);
    }
    // Neither does it take away what the others have.
    clock.advance(Duration::from_secs(6));
    let before = asked.load(Ordering::SeqCst);
    assert_eq!(ask(ORG_KEY).await.expect("nobody has ended it").header("cache-status"), "postern; hit; ttl=-1");
    until(|| asked.load(Ordering::SeqCst) == before + 1).await;
    assert_eq!(ask(ORG_KEY).await.expect("nobody has ended it").header("cache-status"), "postern; hit; ttl=-1");
    assert_eq!(ask(NEXT_ORG_KEY).await.expect("nobody has ended it").header("cache-status"), "postern; hit; ttl=-1");
}
