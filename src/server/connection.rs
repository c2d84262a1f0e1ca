//! One connection: HTTP/1.1 or, by prior knowledge, HTTP/2 (RFC 9113, 3.3) on the same port.

use std::pin::pin;
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};

use crate::config;
use crate::gateway::{Gateway, Scope};

/// Streams that one HTTP/2 connection may have open at once.
const MAX_STREAMS: u32 = 256;

/// Serves connections, all in the same way.
#[derive(Debug)]
pub(super) struct Connections(auto::Builder<TokioExecutor>);

/// Tells a connection to end, and is told when it has.
#[derive(Clone, Debug)]
pub(super) struct Stopping {
    pub(super) stop: watch::Receiver<bool>,
    pub(super) open: mpsc::Sender<()>,
}

impl Stopping {
    /// What a future gives, or nothing if it is time to stop.
    pub(super) async fn unless_stopped<F: Future>(&mut self, future: F) -> Option<F::Output> {
        tokio::select! {
            output = future => Some(output),
            _ = self.stop.wait_for(|stop| *stop) => None,
        }
    }
}

impl Connections {
    pub(super) fn new(settings: &config::Server) -> Self {
        // Twice our own bounds, so that ours are the ones that are met and answered in the documented shape.
        let largest_head = 2 * (settings.max_header_bytes + settings.max_uri_bytes);
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(settings.header_timeout)
            .max_buf_size(largest_head.max(16 * 1024));
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .keep_alive_interval(settings.header_timeout)
            .keep_alive_timeout(settings.header_timeout)
            .max_header_list_size(u32::try_from(largest_head).unwrap_or(u32::MAX));
        Self(builder)
    }

    /// Serves a connection in a task of its own.
    pub(super) fn serve<S>(self: &Arc<Self>, stream: S, gateway: Arc<Gateway>, scope: Scope, mut stopping: Stopping)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connections = Arc::clone(self);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| gateway.handle(&scope, request));
            let mut connection = pin!(connections.0.serve_connection(TokioIo::new(stream), service));
            tokio::select! {
                // A connection that breaks is its peer's business: there is nobody left to tell.
                _ = connection.as_mut() => return,
                _ = stopping.stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
            drop(stopping.open);
        });
    }
}
