//! The connections of one worker: TLS handshake, then HTTP/1.1 or, by prior knowledge, HTTP/2 (RFC 9113, 3.3) on the same
//! port, until the peer or the monitor ends the connection.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::HandshakeKind;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::activity::{ConnectionActivity, DrainPhase};
use super::admission::Admission;
use super::monitored_io::{CONNECTION_WINDOW, MonitoredIo, STREAM_WINDOW};
use super::refusal::HeadRefusals;
use super::service::GatewayService;
use super::timeouts::{ConnectionMonitor, Timeouts};
use super::tls_socket::TlsSocket;
use crate::config;
use crate::executions::QueryMemo;
use crate::generation::{ActiveGeneration, ConnectionOrigin, Listener, ListenerId};
use crate::lifecycle::Lifecycle;
use crate::observe::OpenConnectionGuard;
use crate::request::peer::Peer;

/// Streams that one HTTP/2 connection can have open at once.
const MAX_STREAMS: u32 = 256;

/// Serves the connections of one worker.
#[derive(Debug)]
pub(super) struct Connections {
    active: Arc<ActiveGeneration>,
    worker: usize,
    protocols: ArcSwap<ProtocolSettings>,
    admission: Arc<Admission>,
    monitor: Arc<ConnectionMonitor>,
    /// The memo of parsed queries that all connections of this worker share.
    query_memo: Arc<QueryMemo>,
    /// Turns true when the worker gives up requests in flight.
    abandon: watch::Receiver<bool>,
}

/// The protocol settings of new connections.
#[derive(Debug)]
struct ProtocolSettings {
    http: auto::Builder<TokioExecutor>,
    /// Most bytes of a request head that a connection keeps.
    largest_head: usize,
    /// Longest time for a TLS handshake.
    handshake_timeout: Duration,
}

impl ProtocolSettings {
    fn new(settings: &config::ServerConfig) -> Self {
        // Twice the configured limits: the gateway enforces those itself, with responses of the documented shape.
        let largest_head = 2 * (settings.max_header_size.as_usize() + settings.max_uri_length.as_usize());
        let largest_head = largest_head.max(16 * 1024);
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            // The monitor enforces the header timeout, without a timer per request.
            .header_read_timeout(None)
            .max_buf_size(largest_head);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_stream_window_size(STREAM_WINDOW)
            .keep_alive_interval(settings.header_timeout)
            .keep_alive_timeout(settings.header_timeout)
            .max_header_list_size(u32::try_from(largest_head).unwrap_or(u32::MAX));
        Self { http, largest_head, handshake_timeout: settings.header_timeout }
    }
}

impl Connections {
    pub(super) fn new(
        settings: &config::ServerConfig,
        active: Arc<ActiveGeneration>,
        lifecycle: Arc<Lifecycle>,
        admission: Arc<Admission>,
        (worker, abandon): (usize, watch::Receiver<bool>),
    ) -> Self {
        let protocols = ArcSwap::from_pointee(ProtocolSettings::new(settings));
        let occupancy = Arc::clone(admission.occupancy());
        let monitor = Arc::new(ConnectionMonitor::new(Timeouts::of(settings), lifecycle, occupancy));
        admission.watch(&monitor);
        Self { active, worker, protocols, admission, monitor, query_memo: Arc::default(), abandon }
    }

    /// Applies settings: protocol settings to new connections, timeouts to all.
    pub(super) fn apply(&self, settings: &config::ServerConfig) {
        self.protocols.store(Arc::new(ProtocolSettings::new(settings)));
        self.monitor.set_timeouts(Timeouts::of(settings));
    }

    /// Monitors the connections until the runtime ends; drains all of them when `stop` turns true.
    pub(super) async fn monitor(&self, stop: watch::Receiver<bool>) {
        self.monitor.run(stop).await;
    }

    /// Closes the connections of a listener, each after one more answer.
    pub(super) fn close_listener(&self, listener: ListenerId) {
        self.monitor.close_listener(listener, Instant::now());
    }

    /// Returns what admits new connections.
    pub(super) fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// Serves a connection of a listener with a peer, in a task of its own. The task holds `open` until the connection ends.
    pub(super) fn serve<S>(self: &Arc<Self>, stream: S, (listener, peer): (ListenerId, Peer), open: impl Send + 'static)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // A listener that an earlier reload closed: its TLS settings are gone, so its connection is dropped.
        let Some(Listener { tls, open: accepts, .. }) = self.active.load().listeners.get(&listener).cloned() else {
            return;
        };
        let connections = Arc::clone(self);
        let protocols = self.protocols.load_full();
        // Added before the handshake, which a drain bounds too.
        let activity = self.monitor.add(listener, accepts, Instant::now());
        let served = ServedConnection {
            activity: Arc::clone(&activity),
            active: Arc::clone(&self.active),
            _counted: self.active.gateway().connected(),
        };
        let mut origin = ConnectionOrigin { worker: self.worker, listener, peer, certificates: Vec::new() };
        let Some(tls) = tls else {
            tokio::spawn(async move {
                connections.serve_http(stream, &protocols, origin, activity).await;
                drop((served, open));
            });
            return;
        };
        tokio::spawn(async move {
            let socket = TlsSocket::new(stream, Arc::clone(&activity), Arc::clone(&connections.admission));
            let handshake = TlsAcceptor::from(tls.config()).accept(socket).into_fallible();
            let handshake = until_phase(DrainPhase::Draining, &activity, handshake);
            // Failures are not logged: scanners, and clients that do not trust this certificate, are common.
            let mut stream = match tokio::time::timeout(protocols.handshake_timeout, handshake).await {
                Ok(Some(Ok(stream))) => stream,
                Ok(Some(Err((_, socket)))) => {
                    if let Some(plain) = socket.into_plain() {
                        connections.refuse_plain_http((plain, peer), &protocols, activity).await;
                    }
                    return;
                }
                Ok(None) | Err(_) => return,
            };
            stream.get_mut().0.complete();
            activity.footprint().complete_handshake();
            let session = stream.get_ref().1;
            let certificates = session.peer_certificates().unwrap_or_default();
            if session.handshake_kind() == Some(HandshakeKind::Resumed) && !tls.admits_resumed(certificates) {
                return;
            }
            origin.certificates = certificates.iter().map(|certificate| certificate.clone().into_owned()).collect();
            connections.serve_http(stream, &protocols, origin, activity).await;
            drop((served, open));
        });
    }

    fn monitored<S>(
        &self,
        stream: S,
        protocols: &ProtocolSettings,
        activity: Arc<ConnectionActivity>,
        refusals: HeadRefusals,
    ) -> MonitoredIo<S> {
        MonitoredIo::new(stream, activity, Arc::clone(&self.admission), protocols.largest_head, refusals)
    }

    /// Answers plain HTTP on a port that serves TLS.
    async fn refuse_plain_http<S>(
        &self,
        (stream, peer): (S, Peer),
        protocols: &ProtocolSettings,
        activity: Arc<ConnectionActivity>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let refusals = HeadRefusals::recorded_by(&self.active, peer);
        let response = refusals.without_tls();
        let mut io = self.monitored(stream, protocols, Arc::clone(&activity), refusals);
        let answer = pin!(async {
            io.write_all(&response).await?;
            io.shutdown().await
        });
        // An error concerns only the peer, which knows it.
        drop(until_phase(DrainPhase::Dropped, &activity, answer).await);
    }

    async fn serve_http<S>(
        &self,
        stream: S,
        protocols: &ProtocolSettings,
        origin: ConnectionOrigin,
        activity: Arc<ConnectionActivity>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let refusals = HeadRefusals::recorded_by(&self.active, origin.peer);
        let io = self.monitored(stream, protocols, Arc::clone(&activity), refusals);
        let (query_memo, abandon) = (Arc::clone(&self.query_memo), self.abandon.clone());
        let service = GatewayService::new(&self.active, origin, Arc::clone(&activity), query_memo, abandon);
        let service = service_fn(move |request| service.call(request));
        let mut connection = pin!(protocols.http.serve_connection(TokioIo::new(io), service));
        let mut shutting_down = false;
        let mut registered: Option<Waker> = None;
        poll_fn(|context| {
            if !registered.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                activity.set_waker(context.waker());
                registered = Some(context.waker().clone());
            }
            // Read after the waker is registered: a phase is either seen here or wakes this task.
            let phase = activity.phase();
            let shut_down = match phase {
                // HTTP/2 is shut down at once, since GOAWAY loses no request. HTTP/1.1 announces it in the next response.
                DrainPhase::Closing => activity.takes_goaway(),
                DrainPhase::Draining => true,
                // After a graceful shutdown hyper would no longer read, and so not find the end of the input.
                DrainPhase::Serving | DrainPhase::InputEnded | DrainPhase::Dropped => false,
            };
            if shut_down && !shutting_down {
                shutting_down = true;
                connection.as_mut().graceful_shutdown();
            }
            // A connection error concerns only the peer, which knows it.
            let served = connection.as_mut().poll(context).map(drop);
            // Dropped only after the poll, which writes a response that has just become ready.
            if phase == DrainPhase::Dropped { Poll::Ready(()) } else { served }
        })
        .await;
    }
}

/// A connection that is being served, counted from its acceptance to its end.
#[derive(Debug)]
struct ServedConnection {
    activity: Arc<ConnectionActivity>,
    active: Arc<ActiveGeneration>,
    _counted: OpenConnectionGuard,
}

impl Drop for ServedConnection {
    fn drop(&mut self) {
        self.activity.footprint().end();
        if let Some(reason) = self.activity.footprint().close_reason() {
            self.active.gateway().connection_closed(reason);
        }
    }
}

/// Polls a future until its connection reaches a phase; returns `None` if the phase comes first.
async fn until_phase<F: Future>(phase: DrainPhase, activity: &ConnectionActivity, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| {
        activity.set_waker(context.waker());
        if activity.phase() >= phase {
            return Poll::Ready(None);
        }
        future.as_mut().poll(context).map(Some)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::io::AsyncReadExt;
    use tokio::sync::mpsc;

    use super::*;
    use crate::clock::Clock;
    use crate::config::{Config, Environment};
    use crate::gateway::Gateway;
    use crate::generation::Generation;
    use crate::server::admission::Bounds;
    use crate::tls::{ClientCertificates, Tls, TlsFiles};

    #[tokio::test]
    async fn a_closed_listeners_connection_keeps_its_tls_and_is_dropped_once_forgotten() {
        let mut environment = Environment::default();
        environment.insert("ORG_KEY", "tk_org");
        let text = "[[tenants]]\nid = \"a\"\nmode = \"validate\"\norg_key = { env = \"ORG_KEY\" }\n";
        let config = Config::parse(text, std::path::Path::new("test.toml"), &environment);
        let config = Arc::new(config.expect("it is good"));
        let settings = config.server.clone();
        let clock = Clock::system();
        let gateway = Arc::new(Gateway::new(Arc::clone(&config), clock.clone(), None).expect("it can be made"));
        let client = crate::http_client::Client::new(&config.upstream.connection()).expect("it can be made");
        let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let files = TlsFiles {
            certificate: data.join("server-1.pem"),
            key: data.join("server-1.key"),
            client_ca: None,
            client_certificate: ClientCertificates::Optional,
        };
        let tls = Some(Arc::new(Tls::new(files).expect("they are good")));
        let listeners = BTreeMap::from([
            (ListenerId(0), Listener { identity: None, tls: None, open: false }),
            (ListenerId(1), Listener { identity: None, tls, open: false }),
        ]);
        let active = Arc::new(ActiveGeneration::new(Generation::new(gateway, vec![client], listeners)));
        let lifecycle = Arc::new(Lifecycle::new(clock.wall()));
        let abandon = watch::Sender::new(false);
        let admission = Arc::new(Admission::new(Bounds { connections: 9, unidentified_bytes: 1 << 20 }));
        let connections =
            Arc::new(Connections::new(&settings, active, lifecycle, Arc::clone(&admission), (0, abandon.subscribe())));
        for (listener, begins) in [(0, &b"HTTP/1.1 404"[..]), (1, b"HTTP/1.1 400"), (2, b"")] {
            let (mut peer, stream) = tokio::io::duplex(4096);
            let (open, _drained) = mpsc::channel::<()>(1);
            connections.serve(stream, (ListenerId(listener), Peer::Unknown), (open, admission.admit().await));
            let _ = peer.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            let mut answer = Vec::new();
            let _ = peer.read_to_end(&mut answer).await;
            let text = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with(begins) && answer.is_empty() == begins.is_empty(), "{listener}: {text:?}");
        }
    }
}
