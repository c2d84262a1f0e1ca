//! HTTP/2 frames that cost work and carry nothing: a connection with too many of them ends with GOAWAY.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::frames::{END_STREAM, HEADERS, SETTINGS, frame, opening, request_frame};
use crate::support::leaks::Watched;
use crate::support::{Configuration, ScriptedRefold, World, until, within};

const DATA: u8 = 0;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const PRIORITY_UPDATE: u8 = 16;
const ACK: u8 = 1;

/// Frames of a flood: many times what a connection may send, and little enough for the buffers of a socket.
const FLOOD: usize = 20_000;

/// A connection, frame by frame.
struct Frames {
    stream: Watched<TcpStream>,
    next_stream: u32,
}

impl Frames {
    async fn open(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("TCP");
        stream.write_all(&opening()).await.expect("the server reads");
        Self { stream: Watched::new(stream), next_stream: 1 }
    }

    /// The frame of a request for the executions of a linked account.
    fn request(&mut self, linked_account: &str) -> Vec<u8> {
        let stream = self.next_stream;
        self.next_stream += 2;
        request_frame(stream, linked_account)
    }

    async fn write(&mut self, bytes: &[u8]) {
        // Fails once the server has closed the connection.
        let _ = within(self.stream.write_all(bytes)).await;
    }

    /// Reads a frame: its type and flags; `None` at the end of the connection.
    async fn read(&mut self) -> Option<(u8, u8)> {
        let mut head = [0; 9];
        within(self.stream.read_exact(&mut head)).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("it fits")];
        within(self.stream.read_exact(&mut payload)).await.ok()?;
        let (kind, flags) = (head[3], head[4]);
        if (kind, flags) == (PING, 0) {
            self.write(&frame(PING, ACK, 0, &payload)).await;
        }
        Some((kind, flags))
    }

    /// Reads to the end of a response.
    async fn receive(&mut self) {
        let mut in_response = false;
        while let Some((kind, flags)) = self.read().await {
            assert_ne!(kind, GOAWAY);
            in_response |= kind == HEADERS;
            if in_response && flags & END_STREAM != 0 && [DATA, HEADERS].contains(&kind) {
                return;
            }
        }
        panic!("the connection ended before the response");
    }

    /// Reads to the end of the connection; returns whether GOAWAY came before.
    async fn ends_with_goaway(&mut self) -> bool {
        let mut goaway = false;
        while let Some((kind, _)) = self.read().await {
            goaway |= kind == GOAWAY;
        }
        goaway
    }
}

async fn impatient() -> World {
    let timeouts = |config: Configuration| config.set("server.header_timeout", "1s").set("server.idle_timeout", "10s");
    World::builder().config(timeouts).start().await
}

fn flood_was_closed(world: &World) -> bool {
    world.gateway.metrics().contains("postern_connections_closed_total{reason=\"frame_flood\"} 1\n")
}

#[tokio::test]
async fn a_flood_of_frames_without_content_ends_with_goaway() {
    for (kind, stream, payload) in [
        (WINDOW_UPDATE, 0, &[0, 0, 0, 1][..]),
        (PING, 0, &[0; 8]),
        (SETTINGS, 0, &[]),
        (PRIORITY, 1, &[0, 0, 0, 0, 1]),
        (PRIORITY_UPDATE, 0, &[0, 0, 0, 1]),
        (0xfa, 7, b"unknown"),
    ] {
        let world = impatient().await;
        let mut frames = Frames::open(world.gateway.address).await;
        let request = frames.request("acme-2");
        frames.write(&request).await;
        frames.receive().await;
        frames.write(&frame(kind, 0, stream, payload).repeat(FLOOD)).await;
        assert!(frames.ends_with_goaway().await, "{kind}");
        until(|| flood_was_closed(&world)).await;
    }
}

#[tokio::test]
async fn requests_that_are_reset_before_their_response_are_a_flood() {
    // The monitor allows no more frames in the meantime.
    let patient = |config: Configuration| config.set("server.header_timeout", "60s");
    let world = World::builder().refold(ScriptedRefold::gated().await).config(patient).start().await;
    let mut frames = Frames::open(world.gateway.address).await;
    let mut ended = false;
    // The PINGs alone would reach the bound of 1,000 later.
    for number in 0..800_u32 {
        // Each waits for Refold when it is reset, so that h2 has no reason to object.
        let stream = frames.next_stream;
        let request = frames.request(&format!("a{}", number % 8));
        frames.write(&[request, frame(PING, 0, 0, &[0; 8])].concat()).await;
        while let Some((kind, flags)) = frames.read().await {
            ended |= kind == GOAWAY;
            if ended || (kind, flags) == (PING, ACK) {
                break;
            }
        }
        if ended {
            break;
        }
        frames.write(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])).await;
    }
    assert!(ended);
}

#[tokio::test]
async fn a_peer_that_answers_each_response_with_frames_is_served() {
    let world = World::start().await;
    let mut frames = Frames::open(world.gateway.address).await;
    for _ in 0..700 {
        let request = frames.request("acme-2");
        frames.write(&request).await;
        frames.receive().await;
        let update = [frame(WINDOW_UPDATE, 0, 0, &[0, 0, 64, 0]), frame(PING, 0, 0, &[0; 8])].concat();
        frames.write(&update.repeat(2)).await;
    }
    assert!(world.gateway.metrics().contains("reason=\"frame_flood\"} 0\n"));
}

#[tokio::test]
async fn a_peer_with_small_windows_is_served() {
    let world = World::start().await;
    let mut frames = Frames::open(world.gateway.address).await;
    // As many as a client with windows of 255 bytes sends, which tells of each half of them: a page has about 4 KiB.
    let update = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 2, 0]);
    for _ in 0..200 {
        let request = frames.request("acme-2");
        frames.write(&request).await;
        frames.receive().await;
        frames.write(&update.repeat(32)).await;
    }
    assert!(world.gateway.metrics().contains("reason=\"frame_flood\"} 0\n"));
}
