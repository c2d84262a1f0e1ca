//! A pool of keep-alive connections to one server: HTTP/1.1, one request at a time, the most recently used first.
//!
//! hyper-util's general client looks its pool up by host, races a connect against it and returns connections through tasks
//! and channels. With one host, and a pool that only one thread uses, a stack is enough.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::connect::Connector;
use super::error::{TransportError, TransportErrorKind};
use super::idle::IdleSet;
use super::request_body::RequestBody;

/// A pool of connections. Cheap to clone; clones share the connections.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    idle: IdleSet<SendRequest<RequestBody>>,
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
}

/// A connection in use. [`Lease::release`] returns it to the pool once the response was read to its end; dropped before
/// that, it is closed.
#[derive(Debug)]
pub(super) struct Lease {
    pool: Pool,
    sender: SendRequest<RequestBody>,
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
        while let Some(mut sender) = self.idle.take(Duration::MAX) {
            // It may still be reading the end of the previous response.
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, self.lease(sender))),
                Err(mut failed) => match failed.take_message() {
                    // The server closed the idle connection before any byte of the request was sent.
                    Some(unsent) => request = unsent,
                    None => return Err(no_response(failed.error())),
                },
            }
        }
        // Boxed, since most requests find an idle connection and should not carry this large future through every step.
        let mut sender = Box::pin(self.connect()).await?;
        let response = sender.send_request(request).await.map_err(|error| no_response(&error))?;
        Ok((response, self.lease(sender)))
    }

    async fn connect(&self) -> Result<SendRequest<RequestBody>, TransportError> {
        let io = TokioIo::new(self.shared.connector.connect().await?);
        let (sender, connection) = http1::handshake(io).await.map_err(|error| no_response(&error))?;
        tokio::spawn(async move {
            // The request on this connection gets the error too.
            let _ = connection.await;
        });
        Ok(sender)
    }

    fn lease(&self, sender: SendRequest<RequestBody>) -> Lease {
        Lease { pool: self.clone(), sender }
    }
}

impl Lease {
    /// Returns the connection to the pool, unless the server has closed it or the pool is full.
    pub(super) fn release(self) {
        if self.sender.is_closed() {
            return;
        }
        let limits = self.pool.shared.limits;
        self.pool.idle.put(self.sender, Instant::now() + limits.idle_timeout, limits.idle);
    }
}

fn no_response(error: &hyper::Error) -> TransportError {
    let kind = if error.is_parse() { TransportErrorKind::InvalidResponse } else { TransportErrorKind::Unreachable };
    TransportError::caused_by(kind, error)
}
