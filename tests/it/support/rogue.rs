//! An upstream that breaks HTTP in the ways that real ones do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postern::clock::Clock;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::upstream::{EMPTY_PAGE, read_head, spawn_upstream};
use super::world::Upstream;

/// The bytes of a flood that its upstream stops after.
const FLOOD: u64 = 10_000_000_000;

/// The behaviour of an upstream once it has read a request's head.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deed {
    /// Sends these bytes and keeps the connection.
    Say(&'static str),
    /// Sends these bytes and closes the connection.
    SayAndClose(&'static str),
    /// Sends nothing and keeps the connection.
    Hang,
    /// Resets the connection.
    Reset,
    /// Sends a chunked body of 10 GB.
    Flood,
    /// Sends a head, and then the body byte by byte, one each 50 ms.
    Drip,
}

impl Deed {
    pub(crate) const GOOD: Self = Self::Say(EMPTY_PAGE);
}

/// An upstream that does what a test tells it to.
pub(crate) struct RogueRefold {
    address: SocketAddr,
    deed: Arc<Mutex<Deed>>,
    flooded: Arc<AtomicU64>,
}

impl RogueRefold {
    pub(crate) async fn start() -> Self {
        let deed = Arc::new(Mutex::new(Deed::GOOD));
        let flooded = Arc::new(AtomicU64::new(0));
        let (next, count) = (Arc::clone(&deed), Arc::clone(&flooded));
        let address = spawn_upstream(|listener: TcpListener| async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&next), Arc::clone(&count)));
            }
        })
        .await;
        Self { address, deed, flooded }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the behaviour for all later requests.
    pub(crate) fn behave(&self, deed: Deed) {
        *self.deed.lock().expect("no panic") = deed;
    }

    /// The bytes that were taken of all floods.
    pub(crate) fn flooded(&self) -> u64 {
        self.flooded.load(Ordering::SeqCst)
    }
}

impl Upstream for RogueRefold {
    type Running = Self;

    async fn run(self, _: &Clock) -> (SocketAddr, Self) {
        (self.address, self)
    }
}

async fn serve(mut stream: TcpStream, deed: Arc<Mutex<Deed>>, flooded: Arc<AtomicU64>) {
    while read_head(&mut stream).await.is_some() {
        let deed = *deed.lock().expect("no panic");
        match deed {
            Deed::Say(text) => stream.write_all(text.as_bytes()).await.expect("the gateway reads"),
            Deed::SayAndClose(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                return;
            }
            Deed::Hang => std::future::pending().await,
            Deed::Reset => {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
                return;
            }
            Deed::Flood => return flood(stream, &flooded).await,
            Deed::Drip => return drip(stream).await,
        }
    }
}

async fn flood(mut stream: TcpStream, flooded: &AtomicU64) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
    while flooded.load(Ordering::SeqCst) < FLOOD && stream.write_all(&chunk).await.is_ok() {
        flooded.fetch_add(0x10000, Ordering::SeqCst);
    }
}

async fn drip(mut stream: TcpStream) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
    let mut drops = tokio::time::interval(Duration::from_millis(50));
    while stream.write_all(b" ").await.is_ok() {
        drops.tick().await;
    }
}
