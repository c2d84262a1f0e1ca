//! One connection: HTTP/1.1 or, by prior knowledge, HTTP/2 (RFC 9113, 3.3) on the same port.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use super::listeners::demands;
use super::patience::{Activity, InFlight, Order, Patience, Watch, Watched};
use crate::body::Body;
use crate::config;
use crate::gateway::{Answer, Scope};
use crate::lifecycle::Lifecycle;
use crate::live::{Door, DoorId, Live};
use crate::tls::Tls;

/// Streams that one HTTP/2 connection may have open at once.
const MAX_STREAMS: u32 = 256;

/// Serves the connections of one worker.
#[derive(Debug)]
pub(super) struct Connections {
    live: Arc<Live>,
    worker: usize,
    manner: ArcSwap<Manner>,
    watch: Watch,
    /// Turns true when what is still in flight is given up.
    over: watch::Receiver<bool>,
}

/// How new connections are served.
#[derive(Debug)]
struct Manner {
    builder: auto::Builder<TokioExecutor>,
    /// Bound on a TLS handshake.
    handshake: Duration,
}

impl Manner {
    fn new(settings: &config::Server) -> Self {
        // Twice our own bounds, so that ours are the ones that are met and answered in the documented shape.
        let largest_head = 2 * (settings.max_header_size.as_usize() + settings.max_uri_length.as_usize());
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
        Self { builder, handshake: settings.header_timeout }
    }
}

impl Connections {
    pub(super) fn new(
        settings: &config::Server,
        (live, lifecycle): (Arc<Live>, Arc<Lifecycle>),
        worker: usize,
        over: watch::Receiver<bool>,
    ) -> Self {
        let manner = ArcSwap::from_pointee(Manner::new(settings));
        Self { live, worker, manner, watch: Watch::new(Patience::of(settings), lifecycle), over }
    }

    /// Serves new connections, and waits for all, as these settings say.
    pub(super) fn apply(&self, settings: &config::Server) {
        self.manner.store(Arc::new(Manner::new(settings)));
        self.watch.set_patience(Patience::of(settings));
    }

    /// Watches over the connections: slow and silent ones end, and when `stop` turns true all of them drain.
    pub(super) async fn watch(&self, stop: watch::Receiver<bool>) {
        self.watch.run(stop).await;
    }

    /// Lets the connections end that came in through a door.
    pub(super) fn leave(&self, door: DoorId) {
        self.watch.close(Some(door));
    }

    /// Serves a connection in a task of its own, after a handshake if there is TLS. `open` is held until it ends.
    pub(super) fn accept<S>(self: &Arc<Self>, stream: S, door: DoorId, open: mpsc::Sender<()>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connections = Arc::clone(self);
        let manner = self.manner.load_full();
        // Closed two changes ago: it is not known any longer what its connections are encrypted with.
        let Some(tls) = self.live.load().parts().doors.get(&door).map(|door| door.tls.clone()) else { return };
        let Some(tls) = tls else {
            tokio::spawn(async move {
                connections.serve(stream, &manner, (door, None), Vec::new()).await;
                drop(open);
            });
            return;
        };
        tokio::spawn(async move {
            let handshake = TlsAcceptor::from(tls.config()).accept(stream);
            // Scanners, and clients that trust another authority: common, and nobody here can mend it.
            let Ok(Ok(stream)) = tokio::time::timeout(manner.handshake, handshake).await else { return };
            let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let shown = shown.iter().map(|certificate| certificate.clone().into_owned()).collect();
            connections.serve(stream, &manner, (door, Some(&tls)), shown).await;
            drop(open);
        });
    }

    async fn serve<S>(
        &self,
        stream: S,
        manner: &Manner,
        (door, tls): (DoorId, Option<&Tls>),
        shown: Vec<CertificateDer<'static>>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let _connected = self.live.gateway().connected();
        // The handshake may have begun at a door that is gone by now, or that demands something else.
        let as_it_was = |door: &Door| door.open && demands(door.tls.as_deref()) == demands(tls);
        let gone = !self.live.load().parts().doors.get(&door).is_some_and(as_it_was);
        let activity = self.watch.add(door, gone);
        let watched = Watched::new(stream, Arc::clone(&activity));
        let visitor = Visitor::new(self, door, shown, Arc::clone(&activity));
        let service = service_fn(move |request| visitor.ask(request));
        let mut connection = pin!(manner.builder.serve_connection(TokioIo::new(watched), service));
        let mut told = false;
        let mut waker: Option<Waker> = None;
        poll_fn(|context| {
            if !waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
                activity.on_order(context.waker());
                waker = Some(context.waker().clone());
            }
            let drain = match activity.order() {
                Order::Drop => return Poll::Ready(()),
                // HTTP/2 can be told so without losing what is on its way. In HTTP/1.1 the next answer says it.
                Order::Close => activity.speaks_http_2(),
                Order::Drain => true,
                // At the end it finds that nothing more can be read; to be told so before would keep it from looking.
                Order::Serve | Order::End => false,
            };
            if drain && !told {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            // A connection that breaks is its peer's business: there is nobody left to tell.
            connection.as_mut().poll(context).map(drop)
        })
        .await;
    }
}

/// Whoever sends requests over one connection.
struct Visitor {
    live: Arc<Live>,
    worker: usize,
    door: DoorId,
    shown: Vec<CertificateDer<'static>>,
    /// What it comes in with, as of a generation by its number.
    scope: RefCell<(u64, Scope)>,
    activity: Arc<Activity>,
}

impl Visitor {
    fn new(at: &Connections, door: DoorId, shown: Vec<CertificateDer<'static>>, activity: Arc<Activity>) -> Self {
        let scope = {
            let present = at.live.load();
            RefCell::new((present.number(), present.scope(at.worker, door, &shown, at.over.clone())))
        };
        Self { live: Arc::clone(&at.live), worker: at.worker, door, shown, scope, activity }
    }

    /// Has a request answered by the present gateway. Part of the hit path.
    fn ask(&self, request: Request<Incoming>) -> Answering {
        let in_flight = self.activity.request();
        let http_1 = request.version() < Version::HTTP_2;
        let present = self.live.load();
        let mut scope = self.scope.borrow_mut();
        if scope.0 != present.number() {
            // Whom this connection stands for is decided by the present configuration, not by the one that let it in.
            let over = scope.1.over.clone();
            *scope = (present.number(), present.scope(self.worker, self.door, &self.shown, over));
        }
        let answer = present.parts().gateway.handle(&scope.1, request);
        Answering { answer: Some(answer), http_1, in_flight }
    }
}

/// An answer, and that it is being worked on.
struct Answering {
    /// `None` once it was given.
    answer: Option<Answer>,
    http_1: bool,
    in_flight: InFlight,
}

impl Answering {
    fn finished(&self, mut response: Response<Body>) -> Response<Body> {
        // Whoever reads this sends the next request over another connection, to whoever listens then (RFC 9112, 9.6).
        if self.http_1 && self.in_flight.is_the_last() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl Future for Answering {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.answer.take() {
            Some(Answer::Now(response)) => Poll::Ready(Ok(self.finished(response))),
            Some(Answer::Later(mut response)) => match response.as_mut().poll(cx) {
                Poll::Ready(response) => Poll::Ready(Ok(self.finished(response))),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::clock::Clock;
    use crate::config::{Config, Environment};
    use crate::gateway::Gateway;
    use crate::live::Parts;
    use crate::tls::{ClientCertificates, TlsFiles};

    #[tokio::test]
    async fn a_connection_is_encrypted_as_its_door_was_and_dropped_where_that_is_not_known_any_more() {
        let mut environment = Environment::default();
        environment.insert("ORG_KEY", "tk_org");
        let text = "[[tenants]]\nid = \"a\"\nmode = \"validate\"\norg_key = { env = \"ORG_KEY\" }\n";
        let config = Config::parse(text, std::path::Path::new("test.toml"), &environment);
        let config = Arc::new(config.expect("it is good"));
        let settings = config.server.clone();
        let clock = Clock::system();
        let gateway = Arc::new(Gateway::new(Arc::clone(&config), clock.clone()).expect("it can be made"));
        let client = crate::client::Client::new(&config.upstream.connection()).expect("it can be made");
        let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let files = TlsFiles {
            certificate: data.join("server-1.pem"),
            key: data.join("server-1.key"),
            client_ca: None,
            client_certificate: ClientCertificates::Optional,
        };
        let tls = Some(Arc::new(Tls::new(files).expect("they are good")));
        let doors = BTreeMap::from([
            (DoorId(0), Door { entrance: None, tls: None, open: false }),
            (DoorId(1), Door { entrance: None, tls, open: false }),
        ]);
        let live = Arc::new(Live::new(Parts { gateway, clients: vec![client], doors }));
        let lifecycle = Arc::new(Lifecycle::new(clock.wall()));
        let over = watch::Sender::new(false);
        let connections = Arc::new(Connections::new(&settings, (live, lifecycle), 0, over.subscribe()));
        for (door, begins) in [(0, &b"HTTP/1.1 404"[..]), (1, b"\x15\x03"), (2, b"")] {
            let (mut peer, stream) = tokio::io::duplex(4096);
            let (open, _drained) = mpsc::channel(1);
            connections.accept(stream, DoorId(door), open);
            let _ = peer.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            let mut answer = Vec::new();
            let _ = peer.read_to_end(&mut answer).await;
            let text = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with(begins) && answer.is_empty() == begins.is_empty(), "{door}: {text:?}");
        }
    }
}
