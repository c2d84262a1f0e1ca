//! Connections of a gateway that drains: those without a request under way close within the time that the documentation states, a
//! reader that makes no progress is closed after the idle timeout, and answers under way are finished.

use std::net::SocketAddr;
use std::thread::JoinHandle;

use http_body_util::BodyExt;
use postern::config::ListenAddress;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::connection::{get, http_2_over, http_2_request as hyper_request, with_key};
use crate::support::frames::{opening, request_frame};
use crate::support::leaks::Watched;
use crate::support::tls::{connector, folder_with};
use crate::support::{
    Configuration, EXECUTIONS, Folder, Gateway, KEY, Listener, World, http_upstream, page_of, until, within,
};

/// Far longer than a test waits. Closing takes about five seconds; a server that does not close would take this long.
const DRAIN_TIMEOUT: &str = "10m";
/// Size of an answer in bytes: more than the socket buffers hold.
const LARGE: usize = 8 << 20;

const HALF_A_HEAD: &str = "GET / HTTP/1.1\r\nHost: a\r\nx-api-";
trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

type Stream = Box<dyn Duplex>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Plain,
    Tls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

const KINDS: [(Transport, Version); 4] = [
    (Transport::Plain, Version::Http1),
    (Transport::Plain, Version::Http2),
    (Transport::Tls, Version::Http1),
    (Transport::Tls, Version::Http2),
];

/// A gateway with a plain and a TLS listener, in front of an upstream whose only page has one execution of some size.
struct Served {
    gateway: Gateway,
    config: Configuration,
    certificates: Folder,
}

impl Served {
    async fn start(execution_bytes: usize, change: fn(Configuration) -> Configuration) -> Self {
        let upstream = http_upstream(move |_| async move {
            page_of(&json!({ "status": "COMPLETED", "padding": "x".repeat(execution_bytes) }))
        })
        .await;
        let certificates = folder_with("server-1");
        let listeners = [Listener::new().session_tokens("t"), Listener::at("127.0.0.2:0").tls(&certificates)];
        let builder = World::builder().refold(upstream).config(|config| config.listeners(listeners));
        let world = builder.config(|config| config.drain_timeout(DRAIN_TIMEOUT)).config(change).start().await;
        Self { config: world.config(), gateway: world.gateway, certificates }
    }

    fn address(&self, transport: Transport) -> SocketAddr {
        match self.gateway.server().addresses()[usize::from(transport == Transport::Tls)] {
            ListenAddress::Tcp(address) => address,
            ListenAddress::Unix(_) => panic!("a TCP listener"),
        }
    }

    /// Opens a TCP connection; its receive buffer is small, so that an answer that is not read stays at the server.
    async fn connect(&self, transport: Transport) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("the system allows it");
        socket.connect(self.address(transport)).await.expect("the server listens")
    }

    /// Opens a connection, after a handshake if there is TLS.
    async fn open(&self, transport: Transport) -> Stream {
        let stream = self.connect(transport).await;
        match transport {
            Transport::Plain => Box::new(Watched::new(stream)),
            Transport::Tls => {
                let name = "localhost".try_into().expect("a name");
                Box::new(Watched::new(connector(None).connect(name, stream).await.expect("a handshake")))
            }
        }
    }

    /// Opens a connection over which one request was answered.
    async fn open_idle(&self, (transport, version): (Transport, Version)) -> Stream {
        let mut stream = self.open_asked((transport, version)).await;
        match version {
            Version::Http1 => drop(read_answer(&mut stream).await),
            Version::Http2 => while !read_frame(&mut stream).await.ends_stream() {},
        }
        stream
    }

    /// Opens a connection over which a request was sent.
    async fn open_asked(&self, (transport, version): (Transport, Version)) -> Stream {
        let mut stream = self.open(transport).await;
        let request = match version {
            Version::Http1 => get(EXECUTIONS, &with_key(KEY, "acme-1")).into_bytes(),
            Version::Http2 => [opening(), request_frame(1, "acme-1")].concat(),
        };
        stream.write_all(&request).await.expect("the server reads");
        stream
    }

    /// Opens a connection whose first request's head ends half-way.
    async fn open_half_sent(&self, (transport, version): (Transport, Version)) -> Stream {
        let mut stream = self.open(transport).await;
        let request = request_frame(1, "acme-1");
        let bytes = match version {
            Version::Http1 => HALF_A_HEAD.as_bytes().to_vec(),
            Version::Http2 => [&opening()[..], &request[..request.len() / 2]].concat(),
        };
        stream.write_all(&bytes).await.expect("the server reads");
        stream
    }

    /// Begins to drain.
    async fn stop(self) -> Draining {
        Draining { draining: self.gateway.stop().await, _certificates: self.certificates }
    }
}

/// A server that drains.
struct Draining {
    draining: JoinHandle<()>,
    _certificates: Folder,
}

impl Draining {
    async fn ended(self) {
        until(|| self.draining.is_finished()).await;
        self.draining.join().expect("no panic");
    }
}

struct Frame {
    kind: u8,
    flags: u8,
}

impl Frame {
    fn ends_stream(&self) -> bool {
        self.kind <= 1 && self.flags & 1 == 1
    }
}

async fn read_frame(stream: &mut Stream) -> Frame {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.expect("a frame");
    let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    stream.read_exact(&mut payload).await.expect("a payload");
    Frame { kind: head[3], flags: head[4] }
}

/// Reads the head of an HTTP/1.1 answer.
async fn read_head(stream: &mut Stream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.expect("an answer"));
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// Reads an HTTP/1.1 answer; returns the length of its body.
async fn read_answer(stream: &mut Stream) -> usize {
    let head = read_head(stream).await;
    read_body(stream, &head).await
}

async fn read_body(stream: &mut Stream, head: &str) -> usize {
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    stream.read_exact(&mut body).await.expect("a whole body");
    body.len()
}

/// Reads until the server closes the connection, with or without an error.
async fn read_to_end(mut stream: Stream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = within(stream.read_to_end(&mut bytes)).await;
    bytes
}

#[tokio::test]
async fn connections_without_a_request_under_way_close_soon_after_sigterm() {
    let world = Served::start(1, |config| config).await;
    let (mut idle, mut half_sent, mut silent) = (Vec::new(), Vec::new(), Vec::new());
    for kind in KINDS {
        idle.push((kind, world.open_idle(kind).await));
        half_sent.push((kind, world.open_half_sent(kind).await));
        let mut stream = world.open(kind.0).await;
        if kind.1 == Version::Http2 {
            stream.write_all(&opening()).await.expect("the server reads");
        }
        silent.push(stream);
    }
    // The TLS handshake of this one never begins.
    silent.push(Box::new(world.connect(Transport::Tls).await));
    let draining = world.stop().await;
    for (kind, stream) in idle {
        let rest = read_to_end(stream).await;
        assert!(kind.1 == Version::Http2 || rest.is_empty(), "{kind:?}: {}", String::from_utf8_lossy(&rest));
    }
    for (kind, stream) in half_sent {
        let rest = String::from_utf8_lossy(&read_to_end(stream).await).into_owned();
        assert!(kind.1 == Version::Http2 || rest.starts_with("HTTP/1.1 408 "), "{kind:?}: {rest}");
    }
    for stream in silent {
        read_to_end(stream).await;
    }
    draining.ended().await;
}

#[tokio::test]
async fn a_reader_that_stalls_in_mid_answer_is_closed_while_draining() {
    let world = Served::start(LARGE, |config| config.set("server.idle_timeout", "3s")).await;
    let mut stalled = Vec::new();
    for kind in KINDS {
        let mut stream = world.open_asked(kind).await;
        stream.read_u8().await.expect("an answer");
        stalled.push(stream);
    }
    // With part of a further request in its buffer, hyper does not read, and so does not find the end of the input.
    let mut pipelined = world.open_asked((Transport::Plain, Version::Http1)).await;
    pipelined.write_all(HALF_A_HEAD.as_bytes()).await.expect("the server reads");
    pipelined.read_u8().await.expect("an answer");
    stalled.push(pipelined);
    world.stop().await.ended().await;
    // The clients have kept them open until here.
    drop(stalled);
}

#[tokio::test]
async fn an_answer_under_way_outlasts_the_idle_connections_of_a_drain() {
    let world = Served::start(LARGE, |config| config).await;
    let (mut http_1, mut http_2) = (Vec::new(), Vec::new());
    for transport in [Transport::Plain, Transport::Tls] {
        let mut stream = world.open_asked((transport, Version::Http1)).await;
        let head = read_head(&mut stream).await;
        http_1.push((stream, head));
        let (mut sender, connection) = http_2_over(world.open(transport).await, Some(32 << 10)).await;
        let request = hyper_request("GET", world.address(transport), "acme-1");
        let answer = sender.send_request(request).await.expect("an answer");
        http_2.push((answer, connection));
    }
    let silent: Stream = Box::new(world.connect(Transport::Plain).await);
    let draining = world.stop().await;
    // Once the server closes the silent connection, only answers under way keep it running.
    read_to_end(silent).await;
    for (mut stream, head) in http_1 {
        assert!(read_body(&mut stream, &head).await > LARGE);
        assert!(read_to_end(stream).await.is_empty());
    }
    for (answer, connection) in http_2 {
        assert_eq!(answer.status(), http::StatusCode::OK);
        assert!(answer.into_body().collect().await.expect("a whole body").to_bytes().len() > LARGE);
        connection.await.expect("no panic").expect("a graceful end");
    }
    draining.ended().await;
}

#[tokio::test]
async fn quiet_connections_of_a_removed_listener_close() {
    let world = Served::start(1, |config| config).await;
    let mut left = vec![Box::new(world.connect(Transport::Tls).await) as Stream];
    for version in [Version::Http1, Version::Http2] {
        left.push(world.open_idle((Transport::Tls, version)).await);
        left.push(world.open_half_sent((Transport::Tls, version)).await);
    }
    world.gateway.reload(&world.config.listeners([Listener::new().session_tokens("t")]));
    for stream in left {
        read_to_end(stream).await;
    }
}
