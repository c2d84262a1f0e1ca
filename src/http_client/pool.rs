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

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::connect::Connector;
use super::connection::{Connection, SendFailure};
use super::error::TransportError;
use super::idle::IdleSet;
use super::request_body::RequestBody;

/// A connection that was idle for less is as good as a new one for a request that can't be sent twice.
const FRESH: Duration = Duration::from_secs(1);

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
}

/// A connection in use. [`Lease::release`] returns it to the pool once the response was read to its end; dropped before
/// that, it is closed.
#[derive(Debug)]
pub(super) struct Lease {
    pool: Pool,
    connection: Connection,
}

/// The outcome of a request on a connection that was used before.
enum Reuse {
    Answered(Response<Incoming>),
    /// The request has to be sent on another connection.
    Again(Request<RequestBody>),
    /// The request has to be sent on a new connection: what ended this one may have ended all others too.
    OnNewConnection(Request<RequestBody>),
}

impl Pool {
    pub(super) fn new(connector: Connector, limits: PoolLimits) -> Self {
        Self { shared: Arc::new(Shared { connector, limits }), idle: IdleSet::new() }
    }

    /// Sends a request, whose target is in origin form, over an idle connection or a new one.
    ///
    /// # Errors
    /// If no connection can be opened, or it ends before the response's head.
    pub(super) async fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Lease), TransportError> {
        let max_idle = if request.method() == Method::GET { Duration::MAX } else { FRESH };
        while let Some(mut connection) = self.idle.take(max_idle) {
            match reuse(&mut connection, request).await? {
                Reuse::Answered(response) => return Ok(self.lease(connection, response)),
                Reuse::Again(unanswered) => request = unanswered,
                Reuse::OnNewConnection(unanswered) => {
                    request = unanswered;
                    break;
                }
            }
        }
        // Boxed, since most requests find an idle connection and should not carry this large future through every step.
        let mut connection = Box::pin(self.connect()).await?;
        let response = connection.send(request).await?;
        Ok(self.lease(connection, response))
    }

    async fn connect(&self) -> Result<Connection, TransportError> {
        let io = self.shared.connector.connect().await?;
        // Jitter: connections that were opened together are not replaced together.
        let age = self.shared.limits.max_age.mul_f64(1.0 - 0.2 * fastrand::f64());
        Connection::begin(io, Instant::now() + age).await
    }

    /// Holds the connection of a response. It is closed after one that says that what answers there does not work.
    fn lease(&self, mut connection: Connection, response: Response<Incoming>) -> (Response<Incoming>, Lease) {
        if FAILED.contains(&response.status()) {
            connection.retires = Instant::now();
        }
        (response, Lease { pool: self.clone(), connection })
    }
}

impl Lease {
    /// Returns the connection to the pool, unless the server has closed it, it has reached its age, or the pool is
    /// full.
    pub(super) fn release(self) {
        if self.connection.is_closed() {
            return;
        }
        let limits = self.pool.shared.limits;
        let expires = (Instant::now() + limits.idle_timeout).min(self.connection.retires);
        self.pool.idle.put(self.connection, expires, limits.idle);
    }
}

/// Sends a request on a connection that was used before.
///
/// # Errors
/// If there is no answer, and the request may not be sent again.
async fn reuse(connection: &mut Connection, request: Request<RequestBody>) -> Result<Reuse, TransportError> {
    let copy = repeatable(&request);
    match (connection.send(request).await, copy) {
        (Ok(response), Some(copy)) if response.status() == StatusCode::REQUEST_TIMEOUT => {
            Ok(Reuse::OnNewConnection(copy))
        }
        (Ok(response), _) => Ok(Reuse::Answered(response)),
        (Err(SendFailure::Unsent(request)), _) => Ok(Reuse::Again(request)),
        (Err(SendFailure::NoAnswer(_)), Some(copy)) => Ok(Reuse::OnNewConnection(copy)),
        (Err(failure), _) => Err(failure.into()),
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
