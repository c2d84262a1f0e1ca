//! One connection: HTTP/1.1 or, by prior knowledge, HTTP/2 (RFC 9113, 3.3) on the same port.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use super::patience::{InFlight, Order, Patience, Watch, Watched};
use crate::body::Body;
use crate::config;
use crate::gateway::{Answer, Gateway, Scope};
use crate::tls::{self, Tls};

/// Streams that one HTTP/2 connection may have open at once.
const MAX_STREAMS: u32 = 256;

/// Serves connections, all in the same way.
#[derive(Debug)]
pub(super) struct Connections {
    builder: auto::Builder<TokioExecutor>,
    watch: Watch,
    /// Bound on a TLS handshake.
    handshake: Duration,
}

impl Connections {
    pub(super) fn new(settings: &config::Server) -> Self {
        // Twice our own bounds, so that ours are the ones that are met and answered in the documented shape.
        let largest_head = 2 * (settings.max_header_bytes + settings.max_uri_bytes);
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            // Whoever is slow is found out by ourselves, without a timer for each request.
            .header_read_timeout(None)
            .max_buf_size(largest_head.max(16 * 1024));
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .keep_alive_interval(settings.header_timeout)
            .keep_alive_timeout(settings.header_timeout)
            .max_header_list_size(u32::try_from(largest_head).unwrap_or(u32::MAX));
        let patience = Patience { head: settings.header_timeout, idle: settings.idle_timeout };
        Self { builder, watch: Watch::new(patience), handshake: settings.header_timeout }
    }

    /// Watches over the connections: slow and silent ones end, and when `stop` turns true all of them drain.
    pub(super) async fn watch(&self, stop: watch::Receiver<bool>) {
        self.watch.run(stop).await;
    }

    /// Serves a connection in a task of its own, after a handshake if there is TLS. `open` is held until it ends.
    pub(super) fn accept<S>(
        self: &Arc<Self>,
        stream: S,
        tls: Option<Arc<Tls>>,
        gateway: Arc<Gateway>,
        mut scope: Scope,
        open: mpsc::Sender<()>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connections = Arc::clone(self);
        let Some(tls) = tls else {
            tokio::spawn(async move {
                connections.serve(stream, gateway, scope).await;
                drop(open);
            });
            return;
        };
        tokio::spawn(async move {
            let handshake = TlsAcceptor::from(tls.config()).accept(stream);
            // Scanners, and clients that trust another authority: common, and nobody here can mend it.
            let Ok(Ok(stream)) = tokio::time::timeout(connections.handshake, handshake).await else { return };
            let names = tls::client_names(stream.get_ref().1);
            scope.entrance = gateway.entrance_with_certificate(&scope.entrance, &names);
            connections.serve(stream, gateway, scope).await;
            drop(open);
        });
    }

    async fn serve<S>(&self, stream: S, gateway: Arc<Gateway>, scope: Scope)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let _connected = gateway.connected();
        let activity = self.watch.add();
        let watched = Watched::new(stream, Arc::clone(&activity));
        let requests = Arc::clone(&activity);
        let service = service_fn(move |request: Request<Incoming>| {
            let in_flight = requests.request();
            Answering { answer: Some(gateway.handle(&scope, request)), _in_flight: in_flight }
        });
        let mut connection = pin!(self.builder.serve_connection(TokioIo::new(watched), service));
        let mut obeyed = Order::Serve;
        let mut waker: Option<Waker> = None;
        poll_fn(|context| {
            if !waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
                activity.on_order(context.waker());
                waker = Some(context.waker().clone());
            }
            let order = activity.order();
            if order == Order::Drop {
                return Poll::Ready(());
            }
            if order > obeyed {
                obeyed = order;
                // At the end it finds that nothing more can be read; to be told so before would keep it from looking.
                if order == Order::Drain {
                    connection.as_mut().graceful_shutdown();
                }
            }
            // A connection that breaks is its peer's business: there is nobody left to tell.
            connection.as_mut().poll(context).map(drop)
        })
        .await;
    }
}

/// An answer, and that it is being worked on.
struct Answering {
    /// `None` once it was given.
    answer: Option<Answer>,
    _in_flight: InFlight,
}

impl Future for Answering {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.answer.take() {
            Some(Answer::Now(response)) => Poll::Ready(Ok(response)),
            Some(Answer::Later(mut response)) => match response.as_mut().poll(cx) {
                Poll::Ready(response) => Poll::Ready(Ok(response)),
                Poll::Pending => {
                    self.answer = Some(Answer::Later(response));
                    Poll::Pending
                }
            },
            // Polled after it was ready: like every other such future, it stays pending.
            None => Poll::Pending,
        }
    }
}
