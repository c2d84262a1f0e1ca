//! A pool of keep-alive connections to one server, the most recently used first.
//!
//! A server, or a device on the way to it, may end an idle connection at any time, also as the next request is sent. A GET that
//! gets no byte of an answer, or a 408 (RFC 9110, 15.5.9), on a connection that was used before is therefore sent once more, on
//! a new connection. Other requests may have had an effect: they are never sent twice, and only use a connection that was
//! idle for less than [`FRESH`], or a new one.
//!
//! A name may move to other addresses, so no connection is used for longer than its age, with jitter, or after a 502, 503 or
//! 504.
//!
//! hyper-util's general client looks its pool up by host, races a connect against it and returns connections through tasks
//! and channels. With one host, and a pool that only one thread uses, a stack is enough.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until, timeout};

use super::connect::Connector;
use super::connection::{Connection, SendFailure};
use super::error::{TransportError, TransportErrorKind};
use super::idle::IdleSet;
use super::request_body::{RequestBody, Upload, upload};
use super::resend::ResendPermits;
use super::suspicion::{Suspicion, Waiting};
use crate::log_events;

/// A connection that was idle for less is as good as a new one for a request that can't be sent twice.
const FRESH: Duration = Duration::from_secs(1);

/// Pause before a suspected request tries again to get what its probe needs.
const RECHECK: Duration = Duration::from_millis(100);
/// Statuses of a gateway or server that can't serve. Another connection may reach another one.
const FAILED: [StatusCode; 3] = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];

/// A pool of connections. Cheap to clone; clones share the connections.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    idle: IdleSet<Connection>,
}

#[derive(Debug)]
struct Shared {
    connector: Connector,
    limits: PoolLimits,
    suspicion: Suspicion,
}

/// Limits for the connections of a pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolLimits {
    /// Most idle connections.
    pub(super) idle: usize,
    /// An idle connection is closed after this time.
    pub(super) idle_timeout: Duration,
    /// A connection is used for at most this time.
    pub(super) max_age: Duration,
    /// A GET is suspected to be on a dead connection after this time of silence.
    pub(super) suspect_after: Duration,
}

/// A connection in use. [`Lease::release`] returns it to the pool once the response was read to its end; dropped before
/// that, it is closed.
#[derive(Debug)]
pub(super) struct Lease {
    pool: Pool,
    connection: Connection,
    /// The body of the request, if it is streamed.
    uploaded: Option<Arc<Upload>>,
}

/// The connection that a request is sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionChoice {
    /// An idle one, or a new one if there is none.
    Idle,
    /// A new one: what is wrong with the last one may be wrong with all idle ones.
    New,
}

/// The reason why a request has no response on one connection.
#[expect(clippy::large_enum_variant, reason = "it is moved once")]
enum Unanswered {
    Failed(SendFailure),
    /// The connection is dead though it was not closed.
    Abandoned,
}

/// The answer to a probe and its connection; `None` if there is no answer.
type ProbeAnswer<'a> = Pin<Box<dyn Future<Output = Option<(Response<Incoming>, Connection)>> + Send + 'a>>;

impl Pool {
    pub(super) fn new(connector: Connector, limits: PoolLimits) -> Self {
        let suspicion = Suspicion::new(limits.suspect_after);
        Self { shared: Arc::new(Shared { connector, limits, suspicion }), idle: IdleSet::new() }
    }

    /// Sends a request, whose target is in origin form, first over the chosen connection. A GET with `permits` is sent again
    /// if its connection turns out to be dead.
    ///
    /// # Errors
    /// If no connection can be opened, or it ends before the response's head.
    pub(super) async fn send<P: ResendPermits>(
        &self,
        mut request: Request<RequestBody>,
        first: ConnectionChoice,
        permits: Option<&P>,
    ) -> Result<(Response<Incoming>, Lease), TransportError> {
        let max_idle = if request.method() == Method::GET { Duration::MAX } else { FRESH };
        let uploaded = upload(request.body());
        let mut next = first;
        loop {
            let idle = if next == ConnectionChoice::Idle { self.idle.take(max_idle) } else { None };
            let is_reused = idle.is_some();
            let connection = match idle {
                Some(connection) => connection,
                // Boxed, since most requests find an idle connection and should not carry this large future everywhere.
                None => Box::pin(self.connect()).await?,
            };
            let copy = repeatable(&request);
            let sent = match (permits, &copy) {
                (Some(permits), Some(copy)) => {
                    let suspect = is_reused.then_some(copy);
                    Box::pin(self.send_watched(connection, request, suspect, permits)).await
                }
                _ => send_on(connection, request).await,
            };
            // A copy of a request is used on a connection that was used before, or by a GET that has permits.
            (request, next) = match (sent, copy) {
                (Ok((response, _)), Some(copy)) if is_reused && response.status() == StatusCode::REQUEST_TIMEOUT => {
                    (copy, ConnectionChoice::New)
                }
                (Ok((response, connection)), _) => return Ok(self.lease(connection, response, uploaded)),
                (Err(Unanswered::Failed(SendFailure::Unsent(request))), _) if is_reused => {
                    (request, ConnectionChoice::Idle)
                }
                (Err(Unanswered::Failed(SendFailure::NoAnswer(_))), Some(copy)) if is_reused => {
                    (copy, ConnectionChoice::New)
                }
                (Err(Unanswered::Abandoned), Some(copy)) if self.may_move(permits).await => {
                    (copy, ConnectionChoice::Idle)
                }
                (Err(Unanswered::Failed(failure)), _) => return Err(failure.into()),
                (Err(Unanswered::Abandoned), _) => return Err(TransportErrorKind::Unreachable.into()),
            };
        }
    }

    async fn connect(&self) -> Result<Connection, TransportError> {
        let Shared { connector, limits, suspicion } = &*self.shared;
        let io = connector.connect().await?;
        // Jitter: connections that were opened together are not replaced together.
        let age = limits.max_age.mul_f64(1.0 - 0.2 * fastrand::f64());
        let (number, arrivals) = suspicion.open();
        Connection::begin(io, number, Instant::now() + age, arrivals).await
    }

    /// Sends a GET, and gives its connection up if a probe shows that it is dead. `suspect` is a copy of the request for a probe
    /// of its own; `None` if it may not send one.
    async fn send_watched<P: ResendPermits>(
        &self,
        mut connection: Connection,
        request: Request<RequestBody>,
        suspect: Option<&Request<RequestBody>>,
        permits: &P,
    ) -> Result<(Response<Incoming>, Connection), Unanswered> {
        let suspicion = &self.shared.suspicion;
        let waiting = suspicion.count_request();
        let number = connection.number;
        // An answer that has begun is waited for: the connection is alive.
        let received = connection.received().clone();
        let before = received.bytes();
        let is_silent = || received.bytes() == before;
        let mut abandoned = suspicion.abandoned();
        let mut check_at = suspicion.first_check(waiting);
        let mut probe = None;
        let result = {
            let mut sending = pin!(connection.send(request));
            loop {
                tokio::select! {
                    biased;
                    result = &mut sending => break result,
                    _ = abandoned.wait_for(|abandoned| number <= *abandoned), if is_silent() => {
                        if is_silent() {
                            return Err(Unanswered::Abandoned);
                        }
                    }
                    answer = poll_probe(&mut probe), if probe.is_some() => match answer {
                        Some(answer) => return Ok(answer),
                        None => probe = None,
                    },
                    () = sleep_until(check_at), if suspect.is_some() && probe.is_none() && is_silent() => {
                        let suspected_at = suspicion.suspected_at(waiting);
                        check_at = suspected_at.max(Instant::now() + RECHECK);
                        if let Some(copy) = suspect && is_silent() && suspected_at <= Instant::now() {
                            probe = self.begin_probe(waiting, copy, permits);
                        }
                    }
                }
            }
        };
        result.map(|response| (response, connection)).map_err(Unanswered::Failed)
    }

    /// Sends a copy of a suspected request on a new connection, once it has a permit, if it is still suspected then. Returns
    /// `None` from the future if there is no answer.
    fn begin_probe<'a, P: ResendPermits>(
        &'a self,
        suspect: Waiting,
        request: &Request<RequestBody>,
        permits: &'a P,
    ) -> Option<ProbeAnswer<'a>> {
        let suspicion = &self.shared.suspicion;
        let probe = suspicion.begin_probe(suspect)?;
        let request = repeatable(request)?;
        Some(Box::pin(async move {
            let _permit = permits.acquire_beside().await?;
            if !probe.send() {
                return None;
            }
            let mut connection = self.connect().await.ok()?;
            let response = connection.send(request).await.ok()?;
            tracing::warn!(message = log_events::UPSTREAM_CONNECTIONS_ABANDONED);
            probe.won();
            self.idle.retain(|idle| !suspicion.is_abandoned(idle.number));
            Some((response, connection))
        }))
    }

    async fn may_move<P: ResendPermits>(&self, permits: Option<&P>) -> bool {
        match permits {
            Some(permits) => permits.acquire().await,
            None => false,
        }
    }

    /// Holds the connection of a response. It is closed after one that says that what answers there does not work.
    fn lease(
        &self,
        mut connection: Connection,
        response: Response<Incoming>,
        uploaded: Option<Arc<Upload>>,
    ) -> (Response<Incoming>, Lease) {
        if FAILED.contains(&response.status()) {
            connection.retires = Instant::now();
        }
        (response, Lease { pool: self.clone(), connection, uploaded })
    }
}

impl Lease {
    /// Returns the connection to the pool, unless the server has closed it, it has reached its age, the caller is still sending
    /// the body of its request, or the pool is full.
    pub(super) fn release(mut self) {
        // A server may respond before it has the whole request.
        let is_sending = self.uploaded.as_ref().is_some_and(|uploaded| !uploaded.has_ended());
        if is_sending || self.connection.is_closed() {
            return;
        }
        if self.connection.is_ready() {
            return self.put();
        }
        tokio::spawn(async move {
            // A server that does not read the rest soon may never do so.
            if timeout(FRESH, self.connection.ready()).await == Ok(true) {
                self.put();
            }
        });
    }

    fn put(self) {
        let Shared { limits, suspicion, .. } = &*self.pool.shared;
        if suspicion.is_abandoned(self.connection.number) {
            return;
        }
        let expires = (Instant::now() + limits.idle_timeout).min(self.connection.retires);
        self.pool.idle.put(self.connection, expires, limits.idle);
    }
}

async fn send_on(
    mut connection: Connection,
    request: Request<RequestBody>,
) -> Result<(Response<Incoming>, Connection), Unanswered> {
    match connection.send(request).await {
        Ok(response) => Ok((response, connection)),
        Err(failure) => Err(Unanswered::Failed(failure)),
    }
}

async fn poll_probe(probe: &mut Option<ProbeAnswer<'_>>) -> Option<(Response<Incoming>, Connection)> {
    match probe {
        Some(probe) => probe.await,
        None => None,
    }
}

/// Copies a request that can be sent twice: it is a GET, and its body is in memory.
fn repeatable(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let RequestBody::Left(body) = request.body() else { return None };
    if request.method() != Method::GET {
        return None;
    }
    let mut copy = Request::new(RequestBody::Left(body.clone()));
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    Some(copy)
}
