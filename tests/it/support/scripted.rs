//! An upstream that a test controls: when it answers, with which status, to which org key.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::watch;

use super::until::until;
use super::upstream::{http_upstream, page_of};

/// A Refold whose answers a test controls. Each answer is a page of one execution, whose `_id` and `version` are the number of
/// the request, from 1 on.
#[derive(Clone)]
pub(crate) struct ScriptedRefold {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    open: watch::Sender<bool>,
}

type Rule = Box<dyn Fn(&Parts) -> Option<u16> + Send>;

#[derive(Default)]
struct Script {
    received: Vec<Parts>,
    in_flight: usize,
    most_in_flight: usize,
    /// The statuses of the next answers.
    next: VecDeque<StatusCode>,
    /// Chooses the status by the request; `None` leaves it to `status`.
    rule: Option<Rule>,
    /// The status of all answers after those.
    status: StatusCode,
    headers: HeaderMap,
    /// The only org key that is accepted; `None` accepts all.
    accepted: Option<String>,
}

impl ScriptedRefold {
    /// Starts one that answers 200 at once.
    pub(crate) async fn start() -> Self {
        let (script, open) = (Arc::new(Mutex::new(Script::default())), watch::Sender::new(true));
        let (shared, gate) = (Arc::clone(&script), open.clone());
        let address = http_upstream(move |request| answer(request, Arc::clone(&shared), gate.subscribe())).await;
        Self { address, script, open }
    }

    /// Starts one that holds every request until [`Self::release`].
    pub(crate) async fn gated() -> Self {
        let refold = Self::start().await;
        refold.hold();
        refold
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Holds every request that comes in from now on.
    pub(crate) fn hold(&self) {
        self.open.send_replace(false);
    }

    /// Answers the requests that are held and all later ones.
    pub(crate) fn release(&self) {
        self.open.send_replace(true);
    }

    /// Answers with a status from now on.
    pub(crate) fn answer_with(&self, status: u16) {
        self.script().status = code(status);
    }

    /// Answers the next requests with these statuses.
    pub(crate) fn answer_next_with(&self, statuses: &[u16]) {
        self.script().next = statuses.iter().copied().map(code).collect();
    }

    /// Answers a request with the status that a rule chooses for it, if it chooses one, from now on.
    pub(crate) fn answer_by(&self, rule: impl Fn(&Parts) -> Option<u16> + Send + 'static) {
        self.script().rule = Some(Box::new(rule));
    }

    /// Sends a header with every answer from now on.
    pub(crate) fn send_header(&self, name: &'static str, value: &'static str) {
        self.script().headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }

    /// Refuses every org key but one from now on.
    pub(crate) fn accept_only(&self, org_key: &str) {
        self.script().accepted = Some(org_key.to_owned());
    }

    /// The number of requests that have come in.
    pub(crate) fn requests(&self) -> usize {
        self.script().received.len()
    }

    /// Waits until so many requests have come in.
    pub(crate) async fn until_received(&self, requests: usize) {
        until(|| self.requests() >= requests).await;
        assert_eq!(self.requests(), requests);
    }

    /// The heads of all requests that have come in.
    pub(crate) fn received(&self) -> Vec<Parts> {
        self.script().received.clone()
    }

    /// The `page` of every request that has come in since the last call.
    pub(crate) fn take_pages(&self) -> Vec<u32> {
        self.script().received.drain(..).map(|head| page(&head)).collect()
    }

    /// The target of every request that has come in since the last call.
    pub(crate) fn take_targets(&self) -> Vec<String> {
        self.script().received.drain(..).map(|head| head.uri.to_string()).collect()
    }

    /// The number of requests that wait for their answer.
    pub(crate) fn in_flight(&self) -> usize {
        self.script().in_flight
    }

    /// The largest number of requests that have waited for their answers at once.
    pub(crate) fn most_in_flight(&self) -> usize {
        self.script().most_in_flight
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no panic")
    }
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).expect("a status")
}

fn page(head: &Parts) -> u32 {
    let page = head.uri.query().and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("page=")));
    page.and_then(|page| page.parse().ok()).expect("a page")
}

async fn answer(
    request: Request<Incoming>,
    script: Arc<Mutex<Script>>,
    mut open: watch::Receiver<bool>,
) -> Response<Full<Bytes>> {
    let (number, refused) = {
        let mut script = script.lock().expect("no panic");
        script.in_flight += 1;
        script.most_in_flight = script.most_in_flight.max(script.in_flight);
        let head = request.into_parts().0;
        let refused = script.accepted.as_ref().is_some_and(|key| head.headers.get("x-api-key") != Some(&value(key)));
        script.received.push(head);
        (script.received.len(), refused)
    };
    open.wait_for(|open| *open).await.expect("the test holds the gate");
    let mut script = script.lock().expect("no panic");
    script.in_flight -= 1;
    let mut response = page_of(&json!({ "_id": number, "status": "COMPLETED", "version": number }));
    let chosen = script.rule.as_ref().and_then(|rule| rule(&script.received[number - 1]));
    *response.status_mut() = match script.next.pop_front() {
        _ if refused => StatusCode::UNAUTHORIZED,
        Some(next) => next,
        None => chosen.map_or(script.status, code),
    };
    response.headers_mut().extend(script.headers.clone());
    response
}

fn value(key: &str) -> HeaderValue {
    HeaderValue::from_str(key).expect("a header value")
}
