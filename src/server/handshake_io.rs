//! A socket below TLS, which counts the bytes of the handshake: rustls keeps a message until it is whole, and its peer is not
//! known yet.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::ConnectionActivity;
use super::admission::Admission;

/// Longest message of a handshake that rustls takes.
const MOST_BUFFERED: usize = 64 << 10;

/// A socket that reports the bytes of a TLS handshake.
#[derive(Debug)]
pub(super) struct HandshakeIo<S> {
    stream: S,
    /// `None` once the handshake is complete.
    reports_to: Option<(Arc<ConnectionActivity>, Arc<Admission>)>,
}

impl<S> HandshakeIo<S> {
    pub(super) fn new(stream: S, activity: Arc<ConnectionActivity>, admission: Arc<Admission>) -> Self {
        Self { stream, reports_to: Some((activity, admission)) }
    }

    /// Returns the socket.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    /// Ends the count: the handshake is complete.
    pub(super) fn complete(&mut self) {
        self.reports_to = None;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HandshakeIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some((activity, admission)) = &self.reports_to
            && buffer.filled().len() > before
            && activity.hold(buffer.filled().len() - before, MOST_BUFFERED)
        {
            admission.relieve_memory();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HandshakeIo<S> {
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
