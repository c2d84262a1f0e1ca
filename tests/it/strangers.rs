//! Session tokens that Refold never accepted: their budget is shared between peers, and no other caller notices them.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::support::{
    Answer, Client, Configuration, EXECUTIONS, Folder, Listener, PendingAnswer, ScriptedRefold, World, as_account,
    until, within,
};

/// The time in which one stranger's request is granted, by the default limits.
const PERMIT: Duration = Duration::from_millis(203);

/// The header fields of each request of a flood.
type Fields = Box<dyn Fn(usize) -> Vec<(&'static str, String)>>;

/// The default limits, with time to wait. The probation budget grants two requests at once and five a second.
fn patient(config: Configuration) -> Configuration {
    config.upstream_limit(20, 5).max_wait("60s")
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn ask(client: &Client, token: &str, sent_by: &[(&str, &str)]) -> PendingAnswer {
    let authorization = bearer(token);
    client.spawn_get(EXECUTIONS, &[&[("authorization", authorization.as_str())], sent_by].concat())
}

/// Asks with 30 made-up tokens, and waits until two are sent and the others wait. `fields` are the header fields of each.
async fn flood(
    world: &World<ScriptedRefold>,
    fields: impl Fn(usize) -> Vec<(&'static str, String)>,
) -> Vec<PendingAnswer> {
    let flood = (0..30).map(|number| {
        let fields = fields(number);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        ask(&world.gateway, &format!("made-up-{number}"), &fields)
    });
    let flood = flood.collect();
    until(|| waiting(world) == 28 && world.refold.requests() == 2).await;
    flood
}

/// The number of strangers' requests that wait.
fn waiting(world: &World<ScriptedRefold>) -> usize {
    world.gateway.server().gateway().tenants()[0].probation_budget.queue_depth().total()
}

/// The number of permits after which the request with a token is sent.
async fn permits_until_sent(world: &World<ScriptedRefold>, token: &str) -> usize {
    let is_sent = || {
        world
            .refold
            .received()
            .iter()
            .any(|head| head.headers.get("authorization").is_some_and(|value| value == &bearer(token)))
    };
    for permits in 0..30 {
        if is_sent() {
            return permits;
        }
        let before = world.refold.requests();
        world.clock.advance(PERMIT);
        until(|| world.refold.requests() > before).await;
    }
    panic!("{token} is not sent");
}

#[tokio::test]
async fn the_flood_of_one_peer_does_not_starve_another_behind_a_proxy() {
    let same = |name: &'static str, value: &'static str| move |_: usize| vec![(name, value.to_owned())];
    let forwarded = |number: usize| vec![("forwarded", format!("for={}.9.9.9, for=192.0.2.1;proto=https", number + 1))];
    let in_one_network = |number: usize| vec![("x-forwarded-for", format!("2001:db8::{number:x}"))];
    let floods: [(Fields, (&str, &str)); 4] = [
        (Box::new(same("x-forwarded-for", "192.0.2.1")), ("x-forwarded-for", "198.51.100.7")),
        (Box::new(same("x-forwarded-for", "192.0.2.1, 127.0.0.1")), ("x-forwarded-for", "192.0.2.1, 192.0.2.2")),
        (Box::new(forwarded), ("forwarded", "for=192.0.2.1, for=\"198.51.100.7:80\"")),
        (Box::new(in_one_network), ("x-forwarded-for", "2001:db8:0:1::1")),
    ];
    for (fields, good) in floods {
        let builder = World::builder().refold(ScriptedRefold::start().await).config(patient);
        let world = builder.config(|config| config.set("server.trusted_proxies", vec!["127.0.0.0/8"])).start().await;
        let _flood = flood(&world, fields).await;
        let answer = ask(&world.gateway, "good", &[good]);
        until(|| waiting(&world) == 29).await;
        assert!(permits_until_sent(&world, "good").await <= 2, "{good:?}");
        assert_eq!(answer.answer().await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn hanging_tokens_of_one_peer_leave_places_to_others() {
    let builder = World::builder().refold(ScriptedRefold::gated().await).config(patient);
    let settings = |config: Configuration| config.set("server.trusted_proxies", vec!["127.0.0.0/8"]);
    // A quarter of the places are for strangers.
    let world = builder.config(settings).config(|config| config.set("upstream.max_concurrent", 40)).start().await;
    let (mut hanging, mut held) = (Vec::new(), 0);
    // The first two of all are granted at once.
    for (peer, most, queued) in [("192.0.2.1", 5, 10), ("198.51.100.7", 3, 12), ("2001:db8::1", 1, 12)] {
        let ask = |number| ask(&world.gateway, &format!("made-up-{most}-{number}"), &[("x-forwarded-for", peer)]);
        hanging.extend((0..12).map(ask));
        until(|| waiting(&world) == queued).await;
        while waiting(&world) > 0 {
            let before = waiting(&world);
            world.clock.advance(PERMIT);
            until(|| waiting(&world) < before).await;
        }
        held += most;
        until(|| world.refold.in_flight() == held).await;
        world.gateway.get("/not-found", &[]).await;
        assert_eq!(world.refold.in_flight(), held, "{peer}");
    }
}

/// The number of requests with a session token that reached Refold.
fn sent_by_strangers(world: &World<ScriptedRefold>) -> usize {
    world.refold.received().iter().filter(|head| head.headers.contains_key("authorization")).count()
}

#[tokio::test]
async fn strangers_get_little_of_the_budget_while_known_callers_wait() {
    for tokens in [1_usize, 5, 30] {
        let builder = World::builder().refold(ScriptedRefold::start().await).config(patient);
        let world = builder.config(|config| config.set("cache.derive", "off")).start().await;
        let page = |page: usize| world.gateway.spawn_get(&format!("{EXECUTIONS}?page={page}"), &as_account("acme-1"));
        let _callers: Vec<_> = (1..=100).map(page).collect();
        let waiting_callers = || world.gateway.server().gateway().tenants()[0].upstream_budget().queue_depth().total();
        until(|| world.refold.requests() + waiting_callers() == 100).await;
        let strangers = (0..tokens).map(|number| ask(&world.gateway, &format!("made-up-{number}"), &[]));
        let _strangers: Vec<_> = strangers.collect();
        until(|| waiting(&world) == tokens - 1).await;
        for _ in 0..60 {
            let before = world.refold.requests();
            world.clock.advance(Duration::from_millis(51));
            until(|| world.refold.requests() > before).await;
        }
        assert!(sent_by_strangers(&world) <= 4, "{tokens} tokens: {} sent", sent_by_strangers(&world));
        assert!(sent_by_strangers(&world) >= tokens.min(2), "{tokens} tokens: {} sent", sent_by_strangers(&world));
    }
}

/// Asks over a connection from another loopback address.
async fn ask_from(source: &str, gateway: SocketAddr, token: &str) -> String {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(source.parse().expect("an address"), 0)).expect("a loopback address");
    let mut stream = socket.connect(gateway).await.expect("the gateway listens");
    let request =
        format!("GET {EXECUTIONS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the gateway reads");
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.expect("UTF-8");
    answer
}

#[tokio::test]
async fn a_peer_that_is_no_proxy_cannot_pretend_to_be_many() {
    for name in ["x-forwarded-for", "forwarded"] {
        let builder = World::builder().refold(ScriptedRefold::start().await).config(patient);
        let world =
            builder.config(|config| config.set("server.trusted_proxies", vec!["10.0.0.0/8", "unix"])).start().await;
        let pretended = |number: usize| match name {
            "forwarded" => vec![(name, format!("for=192.0.2.{number}"))],
            _ => vec![(name, format!("192.0.2.{number}"))],
        };
        let _flood = flood(&world, pretended).await;
        let gateway = world.gateway.address;
        let answer = tokio::spawn(async move { ask_from("127.0.0.2", gateway, "good").await });
        until(|| waiting(&world) == 29).await;
        assert!(permits_until_sent(&world, "good").await <= 2, "{name}");
        let answer = answer.await.expect("no panic");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn a_user_on_a_unix_socket_is_a_peer() {
    let folder = Folder::new();
    let socket = folder.join("postern.sock");
    let builder = World::builder().refold(ScriptedRefold::start().await).config(patient);
    let world =
        builder.config(|config| config.first_listener(Listener::unix(&socket).session_tokens("t"))).start().await;
    let _flood = flood(&world, |_| Vec::new()).await;
    let mut stream = tokio::net::UnixStream::connect(&socket).await.expect("the gateway listens");
    let request = format!("GET {EXECUTIONS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer good\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the gateway reads");
    until(|| waiting(&world) == 29).await;
    assert!(permits_until_sent(&world, "good").await <= 2);
}

#[tokio::test]
async fn a_token_that_was_accepted_within_a_day_comes_before_strangers() {
    for (hours, permits) in [(0, 0..1), (1, 0..1), (23, 0..1), (25, 1..30)] {
        let builder = World::builder().refold(ScriptedRefold::start().await).config(patient);
        let world = builder.start().await;
        assert_eq!(ask(&world.gateway, "good", &[]).answer().await.status, StatusCode::OK);
        world.clock.advance(Duration::from_secs(hours * 3600 + 61));
        world.refold.take_pages();
        let _flood = flood(&world, |_| Vec::new()).await;
        let answer = ask(&world.gateway, "good", &[]);
        if permits.end == 1 {
            let answer = answer.answer().await;
            assert_eq!((answer.status, answer.is_hit()), (StatusCode::OK, false), "after {hours} h");
            assert_eq!(answer.header("ratelimit"), "", "it was not accepted any more");
        } else {
            until(|| waiting(&world) == 29).await;
            assert!(permits.contains(&permits_until_sent(&world, "good").await), "after {hours} h");
        }
    }
}

#[tokio::test]
async fn a_token_that_was_refused_is_a_strangers_again() {
    let builder = World::builder().refold(ScriptedRefold::start().await).config(patient);
    let world = builder.start().await;
    let status = async || ask(&world.gateway, "good", &[]).answer().await.status;
    assert_eq!(status().await, StatusCode::OK);
    world.clock.advance(Duration::from_secs(61));
    world.refold.answer_next_with(&[401]);
    assert_eq!(status().await, StatusCode::UNAUTHORIZED);
    world.clock.advance(Duration::from_secs(61));
    world.refold.take_pages();
    let _flood = flood(&world, |_| Vec::new()).await;
    let _waits = ask(&world.gateway, "good", &[]);
    until(|| waiting(&world) == 29).await;
}

#[tokio::test]
async fn the_requests_of_callers_that_disconnect_leave_the_queue() {
    let builder = World::builder().refold(ScriptedRefold::start().await).config(patient);
    let world = builder.start().await;
    let flood = flood(&world, |_| Vec::new()).await;
    flood.iter().for_each(PendingAnswer::abort);
    until(|| waiting(&world) == 0).await;
    world.clock.advance(PERMIT);
    assert_eq!(ask(&world.gateway, "good", &[]).answer().await.status, StatusCode::OK);
    assert_eq!(world.refold.requests(), 3);
}

/// Asks a new question as the account `acme-1`.
async fn as_known(world: &World<ScriptedRefold>, page: usize) -> Answer {
    world.gateway.get(&format!("{EXECUTIONS}?page={page}"), &as_account("acme-1")).await
}

#[tokio::test]
async fn nothing_that_strangers_provoke_counts_against_others() {
    for status in [401, 403, 429, 500, 502, 503, 504] {
        let refold = ScriptedRefold::start().await;
        refold.answer_by(move |head| head.headers.contains_key("authorization").then_some(status));
        refold.send_header("retry-after", "60");
        let world = World::builder().refold(refold).config(|config| config.verify_key("require").admin()).start().await;
        for number in 0..15 {
            let answer = ask(&world.gateway, &format!("made-up-{number}"), &[]).answer().await;
            assert_eq!(answer.status, status, "{:?}", answer.body);
            assert_eq!(as_known(&world, number + 1).await.status, StatusCode::OK, "beside {status}");
        }
        let metrics = world.gateway.metrics();
        for line in [
            "postern_upstream_circuit_open{tenant=\"t\"} 0",
            "postern_upstream_budget_pace_ratio{tenant=\"t\"} 1",
            "postern_tenant_ready{tenant=\"t\"} 1",
        ] {
            assert!(metrics.contains(&format!("{line}\n")), "{status}: {line}");
        }
        assert_eq!(world.gateway.admin("/readyz", &[]).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_strangers_action_drops_no_entry_of_others() {
    for (action, status) in [("stop", 401), ("rerun", 500), ("stop", 503), ("rerun", 404)] {
        let world = World::builder().refold(ScriptedRefold::start().await).start().await;
        assert!(!as_known(&world, 1).await.is_hit());
        world.refold.answer_next_with(&[status]);
        let target = format!("{EXECUTIONS}/1/{action}");
        let answer = world.gateway.send(Method::POST, &target, &[("authorization", "Bearer made-up")]).await;
        assert_eq!(answer.status.as_u16(), status);
        assert!(as_known(&world, 1).await.is_hit(), "{action} {status}");
        // Of a token that Refold accepts, an action is followed by fresh pages.
        assert_eq!(world.gateway.send(Method::POST, &target, &[("authorization", "Bearer good")]).await.status, 200);
        assert!(!as_known(&world, 1).await.is_hit());
    }
}
