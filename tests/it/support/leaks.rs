//! Looks for the suite's secrets in everything that it captures of the program: the output and the log of each process, the
//! responses, and the log events, metrics, status and configuration of each gateway within the tests' process.

use std::fmt::Display;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::{Mutex, Once, PoisonError};
use std::task::{Context, Poll, ready};

use memchr::memmem;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::{ADMIN_TOKEN, ENVIRONMENT, KEY};

/// Private keys of `tests/data` that a gateway or an issuer holds.
const PRIVATE_KEYS: [&str; 7] = [
    include_str!("../../data/server-1.key"),
    include_str!("../../data/server-2.key"),
    include_str!("../../data/client-app.key"),
    include_str!("../../data/issuer-rsa.pem"),
    include_str!("../../data/issuer-ec256.pem"),
    include_str!("../../data/issuer-ec384.pem"),
    include_str!("../../data/issuer-ed25519.pem"),
];

/// The log events of this process that contain a secret.
static LEAKING_EVENTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The secrets that no output may contain: those of the environment, the client key, and a line of each private key.
fn markers() -> impl Iterator<Item = &'static str> {
    let lines = PRIVATE_KEYS.map(|key| key.lines().nth(1).expect("a line of base64"));
    ENVIRONMENT.into_iter().map(|(_, secret)| secret).chain([KEY, ADMIN_TOKEN]).chain(lines)
}

/// The first secret in a text.
pub(crate) fn find(text: &str) -> Option<&'static str> {
    find_in(text.as_bytes())
}

fn find_in(bytes: &[u8]) -> Option<&'static str> {
    markers().find(|marker| memmem::find(bytes, marker.as_bytes()).is_some())
}

/// A test's connection. Its test fails if the other end sends a secret.
pub(crate) struct Watched<S> {
    stream: S,
    /// The last bytes that were read, in which a secret may have begun.
    last: Vec<u8>,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, last: Vec::new() }
    }

    fn look_into(&mut self, read: &[u8]) {
        self.last.extend_from_slice(read);
        if let Some(marker) = find_in(&self.last) {
            let text = String::from_utf8_lossy(&self.last);
            assert!(std::thread::panicking(), "a connection receives the secret {marker}: {text}");
        }
        let longest = markers().map(str::len).max().unwrap_or(0);
        self.last.drain(..self.last.len().saturating_sub(longest));
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.look_into(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Fails the test if a captured text contains a secret.
pub(crate) fn check(origin: impl Display, text: &str) {
    if let Some(marker) = find(text) {
        // The second panic of a test would end all of them.
        assert!(std::thread::panicking(), "{origin} contains the secret {marker}: {text}");
    }
}

/// Begins to look at the log events of this process, all levels included.
pub(crate) fn watch_events() {
    static WATCHING: Once = Once::new();
    WATCHING.call_once(|| {
        let own = FilterFn::new(|metadata| metadata.target().starts_with("postern"));
        let events = tracing_subscriber::fmt::layer().json().with_writer(|| EventWriter).with_filter(own);
        tracing_subscriber::registry().with(events).init();
    });
}

/// Fails the test if a log event of this process contained a secret.
pub(crate) fn check_events() {
    let leaking = LEAKING_EVENTS.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(leaking.is_empty() || std::thread::panicking(), "log events contain secrets: {leaking:#?}");
}

/// Receives each event as one line.
struct EventWriter;

impl Write for EventWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        if find(&text).is_some() {
            LEAKING_EVENTS.lock().unwrap_or_else(PoisonError::into_inner).push(text.into_owned());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
