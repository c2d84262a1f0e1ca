//! A pool of keep-alive connections to one server: HTTP/1.1, one request at a time, the most recently used first.
//!
//! hyper-util's general client looks its pool up by host, races a connect against it and returns connections through tasks
//! and channels. With one host, and a pool that only one thread uses, a stack is enough.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::time::Instant;
use tower_service::Service;

use super::error::{TransportError, TransportErrorKind};
use super::request_body::RequestBody;
use crate::log_events;

/// A pool of connections. Cheap to clone; clones share the connections.
#[derive(Clone, Debug)]
pub(super) struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connector: HttpsConnector<HttpConnector>,
    /// Scheme and authority.
    base_url: Uri,
    max_idle: usize,
    idle_timeout: Duration,
    /// Sorted by `since`.
    idle: Mutex<Vec<IdleConnection>>,
}

#[derive(Debug)]
struct IdleConnection {
    sender: SendRequest<RequestBody>,
    since: Instant,
}

/// A connection in use. [`Lease::release`] returns it to the pool once the response was read to its end; dropped before
/// that, it is closed.
#[derive(Debug)]
pub(super) struct Lease {
    pool: Pool,
    sender: SendRequest<RequestBody>,
}

impl Pool {
    pub(super) fn new(
        connector: HttpsConnector<HttpConnector>,
        base_url: Uri,
        max_idle: usize,
        idle_timeout: Duration,
    ) -> Self {
        Self(Arc::new(Inner { connector, base_url, max_idle, idle_timeout, idle: Mutex::default() }))
    }

    /// Sends a request, whose target is in origin form, over an idle connection or a new one.
    ///
    /// # Errors
    /// If no connection can be opened, or it ends before the response's head.
    pub(super) async fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Lease), TransportError> {
        while let Some(mut sender) = self.take_idle() {
            // The connection may still be reading the end of the previous response.
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
        let connecting = self.0.connector.clone().call(self.0.base_url.clone());
        let io = connecting.await.map_err(|error| {
            let error = TransportError::caused_by(TransportErrorKind::Unreachable, &*error).while_connecting();
            tracing::warn!(%error, message = log_events::CONNECT_FAILED);
            error
        })?;
        let (sender, connection) = http1::Builder::new()
            // Some servers send it; a client has to cope with it (RFC 9112, 5.1).
            .allow_spaces_after_header_name_in_responses(true)
            .handshake(io)
            .await
            .map_err(|error| no_response(&error))?;
        tokio::spawn(async move {
            // The request on this connection gets the error too.
            let _ = connection.await;
        });
        Ok(sender)
    }

    fn lease(&self, sender: SendRequest<RequestBody>) -> Lease {
        Lease { pool: self.clone(), sender }
    }

    /// Takes the most recently used connection; closes those that have idled for too long.
    fn take_idle(&self) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.idle();
        let last = idle.pop()?;
        if last.since.elapsed() < self.0.idle_timeout {
            return Some(last.sender);
        }
        // All others have idled for longer.
        idle.clear();
        None
    }

    fn idle(&self) -> MutexGuard<'_, Vec<IdleConnection>> {
        // No code that can panic runs under the lock.
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Returns the connection to the pool, unless the server has closed it or the pool is full.
    pub(super) fn release(self) {
        if self.sender.is_closed() {
            return;
        }
        let now = Instant::now();
        let mut idle = self.pool.idle();
        let expired = idle.iter().take_while(|idle| now - idle.since >= self.pool.0.idle_timeout).count();
        idle.drain(..expired);
        if idle.len() < self.pool.0.max_idle {
            idle.push(IdleConnection { sender: self.sender, since: now });
        }
    }
}

fn no_response(error: &hyper::Error) -> TransportError {
    let kind = if error.is_parse() { TransportErrorKind::InvalidResponse } else { TransportErrorKind::Unreachable };
    TransportError::caused_by(kind, error)
}
