//! Keep-alive connections to the one server there is: HTTP/1.1, used one request at a time, the freshest first.
//!
//! The general client of the HTTP library asks its pool by host, races a connect against it and hands connections back
//! through tasks and channels. Here is one host, and a worker's pool is used from one thread: a stack is enough.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::time::Instant;
use tower_service::Service;

use super::{Outgoing, TransportError};

use crate::log_events;

/// A pool of connections. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connector: HttpsConnector<HttpConnector>,
    /// Scheme and authority.
    origin: Uri,
    max_idle: usize,
    idle_timeout: Duration,
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<Outgoing>,
    since: Instant,
}

/// A connection that is in use. Hand it back by [`Lease::give_back`] once the answer was read to its end; dropped before
/// that, it is closed.
#[derive(Debug)]
pub(super) struct Lease {
    pool: Pool,
    sender: SendRequest<Outgoing>,
}

impl Pool {
    pub(super) fn new(
        connector: HttpsConnector<HttpConnector>,
        origin: Uri,
        max_idle: usize,
        idle_timeout: Duration,
    ) -> Self {
        Self(Arc::new(Inner { connector, origin, max_idle, idle_timeout, idle: Mutex::default() }))
    }

    /// Sends a request, in origin form, over an idle connection or a new one.
    pub(super) async fn send(
        &self,
        mut request: Request<Outgoing>,
    ) -> Result<(Response<Incoming>, Lease), TransportError> {
        while let Some(mut sender) = self.take() {
            // It may still be reading the end of the answer before.
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, self.lease(sender))),
                // The server closed it in the meantime: nothing of the request was sent, so it can go another way.
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(no_answer(failed.error())),
                },
            }
        }
        // Seldom needed, and large: kept apart, so that a request which needs none does not carry it through every step.
        let mut sender = Box::pin(self.connect()).await?;
        let response = sender.send_request(request).await.map_err(|error| no_answer(&error))?;
        Ok((response, self.lease(sender)))
    }

    async fn connect(&self) -> Result<SendRequest<Outgoing>, TransportError> {
        let connecting = self.0.connector.clone().call(self.0.origin.clone());
        let io = connecting.await.map_err(|error| {
            tracing::warn!(%error, message = log_events::CONNECT_FAILED);
            TransportError::Unreachable
        })?;
        let (sender, connection) = http1::handshake(io).await.map_err(|error| no_answer(&error))?;
        tokio::spawn(async move {
            // How it ended is told to whoever waits for an answer over it.
            let _ = connection.await;
        });
        Ok(sender)
    }

    fn lease(&self, sender: SendRequest<Outgoing>) -> Lease {
        Lease { pool: self.clone(), sender }
    }

    /// The connection that was used last; those that have idled for too long are closed.
    fn take(&self) -> Option<SendRequest<Outgoing>> {
        let mut idle = self.idle();
        let last = idle.pop()?;
        if last.since.elapsed() < self.0.idle_timeout {
            return Some(last.sender);
        }
        // All others have idled for longer.
        idle.clear();
        None
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        // Nothing that can panic runs under the lock.
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    pub(super) fn give_back(self) {
        if self.sender.is_closed() {
            return;
        }
        let now = Instant::now();
        let mut idle = self.pool.idle();
        let expired = idle.iter().take_while(|idle| now - idle.since >= self.pool.0.idle_timeout).count();
        idle.drain(..expired);
        if idle.len() < self.pool.0.max_idle {
            idle.push(Idle { sender: self.sender, since: now });
        }
    }
}

fn no_answer(error: &hyper::Error) -> TransportError {
    if error.is_parse() { TransportError::Broken } else { TransportError::Unreachable }
}
