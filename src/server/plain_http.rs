//! Plain HTTP on a port that serves TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A socket below TLS, which ends the handshake with a peer that speaks plain HTTP. TLS would answer it with an alert, which no
/// HTTP client can read.
#[derive(Debug)]
pub(super) struct TlsSocket<S> {
    stream: S,
    first: FirstByte,
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
    pub(super) fn new(stream: S) -> Self {
        Self { stream, first: FirstByte::Awaited }
    }

    /// Returns the socket of a peer that speaks plain HTTP; `None` for any other peer.
    pub(super) fn into_plain(self) -> Option<S> {
        (self.first == FirstByte::Letter).then_some(self.stream)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TlsSocket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if self.first == FirstByte::Awaited
            && let Some(first) = buffer.filled().get(before)
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
