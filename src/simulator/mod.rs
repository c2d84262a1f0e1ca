//! The embedded simulated Refold: deterministic from a seed, with a history that goes on with the clock, the published
//! rate limit, the documented errors, and faults on demand. It shares no code with the gateway's steps, so that one can
//! be held against the other.

mod api;
mod fault;
mod filter;
mod history;
mod rate;
mod webhooks;

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Method, Request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::net::TcpListener;

use crate::clock::Clock;
use crate::digest::{Hex, decode_hex_to_vec, sha256};
pub use fault::{Fault, FaultBody};
use history::{Execution, History};
use rate::Rate;
use webhooks::Webhooks;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Equal seeds give equal executions.
    pub seed: u64,
    /// Values of `x-api-key` that are accepted.
    pub org_keys: Vec<String>,
    /// Requests per second and burst for each org key; `None` for any number.
    pub rate: Option<(u32, u32)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { seed: 1, org_keys: vec!["tk_simulated_org_key".to_owned()], rate: Some((20, 5)) }
    }
}

/// What is recent, in milliseconds.
const RECENT: i64 = 10 * 60 * 1000;

/// A simulated Refold. Cheap to clone; clones are the same one.
#[derive(Clone, Debug)]
pub struct Simulator(Arc<State>);

#[derive(Debug)]
struct State {
    settings: Settings,
    clock: Clock,
    history: History,
    rate: Option<Rate>,
    requests: AtomicU64,
    rate_limited: AtomicU64,
    webhooks: Webhooks,
    /// Linked accounts that somebody has asked for.
    known: Mutex<HashSet<String>>,
    fault: Mutex<Option<Fault>>,
    revoked: Mutex<HashSet<String>>,
}

impl Simulator {
    /// A Refold whose history ends now and goes on with the clock.
    #[must_use]
    pub fn new(settings: Settings, clock: Clock) -> Self {
        Self(Arc::new(State {
            history: History::new(settings.seed, clock.wall().as_millisecond()),
            rate: settings.rate.map(|(per_second, burst)| Rate::new(per_second, burst)),
            settings,
            clock,
            requests: AtomicU64::new(0),
            rate_limited: AtomicU64::new(0),
            webhooks: Webhooks::default(),
            known: Mutex::default(),
            fault: Mutex::default(),
            revoked: Mutex::default(),
        }))
    }

    /// Serves HTTP/1.1 until the task is dropped.
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn serve(self, listener: TcpListener) -> io::Result<()> {
        tokio::select! {
            failed = self.accept(listener) => failed,
            () = self.tell_of_changes() => Ok(()),
        }
    }

    async fn accept(&self, listener: TcpListener) -> io::Result<()> {
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let simulator = self.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let simulator = simulator.clone();
                    async move { simulator.answer(request).await }
                });
                // Whoever has closed the connection knows.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    /// Requests for executions so far, refused ones too.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::SeqCst)
    }

    /// Requests that were refused because of the rate limit so far.
    #[must_use]
    pub fn rate_limited(&self) -> u64 {
        self.0.rate_limited.load(Ordering::SeqCst)
    }

    /// Breaks every following request in the same way, until it is changed.
    pub fn set_fault(&self, fault: Option<Fault>) {
        *lock(&self.0.fault) = fault;
    }

    /// The session token of a linked account; always the same one.
    #[must_use]
    pub fn session_token(&self, linked_account: &str) -> String {
        let tag = sha256(format!("{}/{linked_account}", self.0.settings.seed).as_bytes());
        format!("sim.{}.{}", Hex(linked_account.as_bytes()), Hex(&tag[..16]))
    }

    /// Refuses a session token from now on.
    pub fn revoke_session_token(&self, token: &str) {
        lock(&self.0.revoked).insert(token.to_owned());
    }

    /// Linked accounts worth a look, and how many executions they have now.
    #[must_use]
    pub fn linked_accounts(&self) -> Vec<(&'static str, u64)> {
        let now = self.0.clock.wall().as_millisecond();
        history::NAMED.iter().map(|(id, ..)| (*id, u64::from(self.0.history.account(id).total(now)))).collect()
    }

    /// How many executions a linked account has now.
    #[must_use]
    pub fn executions(&self, linked_account: &str) -> u64 {
        u64::from(self.0.history.account(linked_account).total(self.0.clock.wall().as_millisecond()))
    }

    /// When an execution of a linked account last became something else; `None` if that is long ago.
    #[must_use]
    pub fn last_change(&self, linked_account: &str) -> Option<Timestamp> {
        let now = self.0.clock.wall().as_millisecond();
        let account = self.0.history.account(linked_account);
        let last = account.changes(now - RECENT, now).iter().map(|execution| execution.changed).max()?;
        Timestamp::from_millisecond(last).ok()
    }

    /// What has changed in linked accounts that somebody has asked for.
    fn changes(&self, from: i64, now: i64) -> Vec<(String, Execution)> {
        let accounts: Vec<String> = lock(&self.0.known).iter().cloned().collect();
        let of = |id: String| {
            let changed = self.0.history.account(&id).changes(from, now);
            changed.into_iter().map(move |execution| (id.clone(), execution))
        };
        accounts.into_iter().flat_map(of).collect()
    }

    /// Whose session token this is, if it is one.
    fn holder(&self, token: &str) -> Option<String> {
        let id = token.strip_prefix("sim.")?.split('.').next()?;
        let account = String::from_utf8(decode_hex_to_vec(id.as_bytes())?).ok()?;
        (self.session_token(&account) == token && !lock(&self.0.revoked).contains(token)).then_some(account)
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<http::Response<fault::SimulatedBody>, fault::Reset> {
        let asked = request.headers().get("x-simulate").and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(fault) = request.uri().path().strip_prefix("/simulate/") {
            return Ok(self.switch_fault(fault));
        }
        if request.uri().path() == webhooks::WEBHOOKS && request.method() == Method::POST {
            return Ok(self.register_webhook(request).await);
        }
        let fault = asked.or_else(|| lock(&self.0.fault).clone());
        if request.uri().path().starts_with(api::COLLECTION) {
            self.0.requests.fetch_add(1, Ordering::SeqCst);
        }
        match fault {
            Some(Fault::Latency(latency)) => {
                self.0.clock.sleep_until(self.0.clock.now() + latency).await;
                Ok(fault::SimulatedBody::whole(self.respond(&request)))
            }
            Some(fault) => fault.play(self.next_request_id()).await,
            None => Ok(fault::SimulatedBody::whole(self.respond(&request))),
        }
    }

    /// `POST /simulate/status=503` breaks what follows, `/simulate/none` mends it: for a demonstration behind a gateway,
    /// which passes no header on.
    fn switch_fault(&self, fault: &str) -> http::Response<fault::SimulatedBody> {
        let (status, message) = match (fault, fault.parse()) {
            ("none", _) => {
                self.set_fault(None);
                (200, "mended\n")
            }
            (_, Ok(fault)) => {
                self.set_fault(Some(fault));
                (200, "broken as you wish\n")
            }
            (_, Err(())) => (
                400,
                "use none, latency=250ms, status=503, variant=404, html=502, empty=500, garbage, truncate, hang, reset or redirect\n",
            ),
        };
        fault::plain(status, message)
    }

    /// `POST /api/v2/public/webhook`
    async fn register_webhook(&self, request: Request<Incoming>) -> http::Response<fault::SimulatedBody> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        fault::SimulatedBody::whole(self.respond_to_registration(&head.headers, &body))
    }

    fn next_request_id(&self) -> String {
        let number = self.0.requests.load(Ordering::SeqCst);
        let high = history::mix(self.0.settings.seed, number);
        let id = (u128::from(high) << 64) | u128::from(history::mix(high, number));
        uuid::Builder::from_random_bytes(id.to_be_bytes()).into_uuid().to_string()
    }
}

/// What a panic in another task has left behind is still a set or a fault.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
