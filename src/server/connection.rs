//! The connections of one worker: TLS handshake, then HTTP, until the peer or the monitor ends the connection.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::HandshakeKind;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::activity::{ConnectionActivity, DrainPhase};
use super::admission::Admission;
use super::http::{HttpSettings, until_phase};
use super::monitored_io::MonitoredIo;
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
    http: HttpSettings,
    /// Longest time for a TLS handshake.
    handshake_timeout: Duration,
}

impl ProtocolSettings {
    fn new(settings: &config::ServerConfig) -> Self {
        Self { http: HttpSettings::new(settings), handshake_timeout: settings.header_timeout }
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
            activity.footprint().release_buffers();
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
        MonitoredIo::new(stream, activity, Arc::clone(&self.admission), protocols.http.largest_head, refusals)
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
        protocols.http.serve(io, service, &activity).await;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::io::{AsyncReadExt, DuplexStream};
    use tokio::net::UnixStream;
    use tokio::sync::mpsc;

    use super::*;
    use crate::clock::Clock;
    use crate::config::{Config, Environment};
    use crate::gateway::Gateway;
    use crate::generation::Generation;
    use crate::server::admission::Bounds;
    use crate::tls::{ClientCertificates, Tls, TlsFiles};

    /// The connections of a worker with two listeners: 0 is plain, 1 has TLS.
    fn connections(open: bool) -> Arc<Connections> {
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
            (ListenerId(0), Listener { identity: None, tls: None, open }),
            (ListenerId(1), Listener { identity: None, tls, open }),
        ]);
        let active = Arc::new(ActiveGeneration::new(Generation::new(gateway, vec![client], listeners)));
        let lifecycle = Arc::new(Lifecycle::new(clock.wall()));
        let abandon = watch::Sender::new(false);
        let admission = Arc::new(Admission::new(Bounds { connections: 9, unidentified_bytes: 1 << 20 }));
        Arc::new(Connections::new(&settings, active, lifecycle, admission, (0, abandon.subscribe())))
    }

    #[tokio::test]
    async fn a_closed_listeners_connection_keeps_its_tls_and_is_dropped_once_forgotten() {
        let connections = connections(false);
        for (listener, begins) in [(0, &b"HTTP/1.1 404"[..]), (1, b"HTTP/1.1 400"), (2, b"")] {
            let (mut peer, stream) = tokio::io::duplex(4096);
            let (open, _drained) = mpsc::channel::<()>(1);
            connections.serve(
                stream,
                (ListenerId(listener), Peer::Unknown),
                (open, connections.admission().admit().await),
            );
            let _ = peer.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            let mut answer = Vec::new();
            let _ = peer.read_to_end(&mut answer).await;
            let text = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with(begins) && answer.is_empty() == begins.is_empty(), "{listener}: {text:?}");
        }
    }

    /// Reads one response without content.
    async fn status(peer: &mut DuplexStream) -> String {
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let read = peer.read_buf(&mut answer).await.expect("it is open");
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        }
        String::from_utf8_lossy(&answer[..12]).into_owned()
    }

    /// Has the only connection rest, and returns once it does.
    async fn rest(connections: &Connections) {
        let connection = only(connections);
        assert!(connection.suggest_rest(), "the connection is idle");
        while connection.is_to_rest() {
            tokio::task::yield_now().await;
        }
    }

    fn only(connections: &Connections) -> Arc<ConnectionActivity> {
        let mut open = Vec::new();
        connections.monitor.collect_open(&mut open);
        open.remove(0)
    }

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[tokio::test]
    async fn a_connection_that_rested_serves_the_next_requests() {
        let connections = connections(true);
        let (mut peer, stream) = tokio::io::duplex(1 << 16);
        connections.serve(stream, (ListenerId(0), Peer::Unknown), ());
        let long = [b"GET / HTTP/1.1\r\nHost: a\r\nx-long: ", &b"x".repeat(5_000)[..], b"\r\n\r\n"].concat();
        for after in [REQUEST, &long] {
            peer.write_all(REQUEST).await.expect("it is open");
            assert_eq!(status(&mut peer).await, "HTTP/1.1 404");
            rest(&connections).await;
            peer.write_all(&after[..1]).await.expect("it is open");
            tokio::task::yield_now().await;
            peer.write_all(&after[1..]).await.expect("it is open");
            assert_eq!(status(&mut peer).await, "HTTP/1.1 404");
            rest(&connections).await;
        }
        // A head that has begun has to end in time.
        let (half, rest_of_it) = REQUEST.split_at(REQUEST.len() - 1);
        peer.write_all(&[REQUEST, half].concat()).await.expect("it is open");
        assert_eq!(status(&mut peer).await, "HTTP/1.1 404");
        assert!(!only(&connections).suggest_rest());
        peer.write_all(rest_of_it).await.expect("it is open");
        assert_eq!(status(&mut peer).await, "HTTP/1.1 404");
    }

    /// Returns the most signs of life of clients that pipeline, until another connection that has received a byte has its turn.
    async fn most_signs_of_life_before_another_connection(pipelining: usize) -> u64 {
        let connections = connections(true);
        let mut peers = Vec::new();
        for _ in 0..pipelining {
            let (mut peer, stream) = tokio::io::duplex(4 << 20);
            peer.write_all(&REQUEST.repeat(4_000)).await.expect("it fits");
            connections.serve(stream, (ListenerId(0), Peer::Unknown), ());
            peers.push(peer);
        }
        let mut open = Vec::new();
        connections.monitor.collect_open(&mut open);
        let signs = || open.iter().map(|activity| activity.events()).sum::<u64>();
        let (mut peer, mut other) = UnixStream::pair().expect("a pair of sockets");
        let mut most = 0;
        for _ in 0..50 {
            tokio::task::yield_now().await;
            let before = signs();
            peer.write_all(b"x").await.expect("it fits");
            other.read_u8().await.expect("a byte");
            most = most.max(signs() - before);
        }
        let end = signs();
        tokio::task::yield_now().await;
        assert!(signs() > end, "they are busy to the end");
        most
    }

    #[test]
    fn clients_that_pipeline_let_the_others_have_their_turns() {
        for pipelining in [1, 2, 50] {
            let runtime = super::super::worker::runtime().expect("a runtime");
            let most = runtime.block_on(most_signs_of_life_before_another_connection(pipelining));
            // Each has one turn or two: 9 requests begun, and at most as many writes.
            assert!(most <= 2 * 18 * pipelining as u64, "{pipelining}: {most}");
        }
    }

    #[tokio::test]
    async fn a_strangers_connection_at_rest_counts_no_memory() {
        let connections = connections(true);
        let (mut peer, stream) = tokio::io::duplex(1 << 16);
        connections.serve(stream, (ListenerId(0), Peer::Unknown), ());
        let unidentified = || connections.admission().occupancy().unidentified_bytes();
        for _ in 0..2 {
            peer.write_all(REQUEST).await.expect("it is open");
            assert_eq!(status(&mut peer).await, "HTTP/1.1 404");
            assert_eq!(unidentified(), REQUEST.len());
            rest(&connections).await;
            assert_eq!(unidentified(), 0);
        }
        // A head that has begun is still in memory.
        peer.write_all(&[REQUEST, b"GET"].concat()).await.expect("it is open");
        assert_eq!(status(&mut peer).await, "HTTP/1.1 404");
        assert_eq!(unidentified(), REQUEST.len() + 3);
    }

    #[tokio::test]
    async fn what_follows_the_last_request_is_no_request() {
        for last in ["GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"] {
            let connections = connections(true);
            let (mut peer, stream) = tokio::io::duplex(1 << 16);
            connections.serve(stream, (ListenerId(0), Peer::Unknown), ());
            peer.write_all(REQUEST).await.expect("it is open");
            assert_eq!(status(&mut peer).await, "HTTP/1.1 404");
            let mut open = Vec::new();
            connections.monitor.collect_open(&mut open);
            // The rest and the request reach the connection's task in the same turn.
            assert!(open[0].suggest_rest());
            let events = open[0].events();
            peer.write_all(&[last.as_bytes(), REQUEST].concat()).await.expect("it is open");
            let mut answer = Vec::new();
            let end = peer.read_to_end(&mut answer);
            tokio::time::timeout(Duration::from_mins(1), end).await.expect("the output ends").expect("it is open");
            peer.write_all(REQUEST).await.expect("the input is discarded");
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            let text = String::from_utf8_lossy(&answer);
            assert_eq!(text.matches("HTTP/1.").count(), 1, "{text}");
            // The head, the request, the response and the end of the output; what is discarded counts once or twice.
            assert!(open[0].events() - events <= 6 && !open[0].awaits_response(), "{}", open[0].events() - events);
        }
    }

    #[tokio::test]
    async fn a_connection_that_rested_does_not_change_its_protocol() {
        let connections = connections(true);
        let (mut peer, stream) = tokio::io::duplex(1 << 16);
        connections.serve(stream, (ListenerId(0), Peer::Unknown), ());
        peer.write_all(REQUEST).await.expect("it is open");
        assert_eq!(status(&mut peer).await, "HTTP/1.1 404");
        rest(&connections).await;
        peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("it is open");
        let mut frames = Vec::new();
        peer.read_to_end(&mut frames).await.expect("it is closed in order");
        assert!(frames.is_empty());
    }

    #[tokio::test]
    async fn a_connection_at_rest_is_closed_by_its_peer_and_by_a_drain() {
        for drains in [false, true] {
            let connections = connections(true);
            let (mut peer, stream) = tokio::io::duplex(1 << 16);
            let (open, mut ended) = mpsc::channel::<()>(1);
            connections.serve(stream, (ListenerId(0), Peer::Unknown), open);
            peer.write_all(REQUEST).await.expect("it is open");
            assert_eq!(status(&mut peer).await, "HTTP/1.1 404");
            rest(&connections).await;
            let mut activities = Vec::new();
            connections.monitor.collect_open(&mut activities);
            if drains {
                activities[0].advance(DrainPhase::Draining);
            } else {
                peer.shutdown().await.expect("it is open");
            }
            let mut late = Vec::new();
            peer.read_to_end(&mut late).await.expect("it is closed in order");
            assert!(late.is_empty());
            drop(peer);
            assert_eq!(ended.recv().await, None);
        }
    }
}
