//! A socket below TLS. It counts the bytes of the handshake, since rustls keeps a message until it is whole and the peer is not
//! known yet, and it ends the handshake with a peer that speaks plain HTTP.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::ConnectionActivity;
use super::admission::Admission;

/// Longest message of a handshake that rustls takes.
const MOST_BUFFERED: usize = 64 << 10;

/// A socket below TLS. TLS would answer plain HTTP with an alert, which no HTTP client can read.
#[derive(Debug)]
pub(super) struct TlsSocket<S> {
    stream: S,
    first: FirstByte,
    /// Receivers of the number of bytes; `None` once the handshake is complete.
    reports_to: Option<(Arc<ConnectionActivity>, Arc<Admission>)>,
}

/// The first byte that the peer has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FirstByte {
    Awaited,
    /// A byte that can begin a TLS record (RFC 8446, 5.1).
    OfTls,
    /// A letter, as a request method begins with. No TLS record begins with one.
    Letter,
}

impl<S> TlsSocket<S> {
    pub(super) fn new(stream: S, activity: Arc<ConnectionActivity>, admission: Arc<Admission>) -> Self {
        Self { stream, first: FirstByte::Awaited, reports_to: Some((activity, admission)) }
    }

    /// Returns the socket of a peer that speaks plain HTTP; `None` for any other peer.
    pub(super) fn into_plain(self) -> Option<S> {
        (self.first == FirstByte::Letter).then_some(self.stream)
    }

    /// Ends the count: the handshake is complete.
    pub(super) fn complete(&mut self) {
        self.reports_to = None;
    }

    /// Counts these bytes of a handshake.
    fn count(&self, received: usize) {
        if let Some((activity, admission)) = &self.reports_to
            && received > 0
            && activity.hold(received, MOST_BUFFERED)
        {
            admission.relieve_memory();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TlsSocket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let received = &buffer.filled()[before..];
        self.count(received.len());
        if self.first == FirstByte::Awaited
            && let Some(first) = received.first()
        {
            self.first = if first.is_ascii_alphabetic() { FirstByte::Letter } else { FirstByte::OfTls };
        }
        let is_tls = self.first != FirstByte::Letter;
        Poll::Ready(if is_tls { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TlsSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
