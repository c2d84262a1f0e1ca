//! A connection's socket, which reports reads and writes to the connection's activity and ends the input of a connection that
//! has timed out.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::{ConnectionActivity, DrainPhase};
use crate::error::{ClientError, Reason};
use crate::request::RequestId;

/// The first bytes of an HTTP/2 connection (RFC 9113, 3.4), on which no HTTP/1.1 response can be written.
const HTTP_2_PREFACE: &[u8] = b"PRI ";

/// Bytes of a PING frame (RFC 9113, 6.7), the largest frame that an idle HTTP/2 connection sends from time to time.
const PING_FRAME: usize = 17;

/// A socket that reports reads and writes.
#[derive(Debug)]
pub(super) struct MonitoredIo<S> {
    stream: S,
    activity: Arc<ConnectionActivity>,
    has_read: bool,
}

impl<S> MonitoredIo<S> {
    pub(super) fn new(stream: S, activity: Arc<ConnectionActivity>) -> Self {
        Self { stream, activity, has_read: false }
    }

    fn record_write(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.activity.set_write_blocked(result.is_pending());
        if let Poll::Ready(Ok(bytes)) = result
            && (bytes > PING_FRAME || !self.activity.is_http_2())
        {
            self.activity.record_event();
        }
        result
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for MonitoredIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.activity.phase() >= DrainPhase::InputEnded {
            if self.activity.abandon_head() {
                // One attempt, without waiting: a peer this slow has had its time.
                let _ = Pin::new(&mut self.stream).poll_write(cx, &request_timeout());
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let new = buffer.filled().get(before..).unwrap_or_default();
        if read.is_ready() && !new.is_empty() {
            if !self.has_read {
                self.activity.set_http_2(new.starts_with(HTTP_2_PREFACE));
                self.has_read = true;
            }
            self.activity.record_read();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MonitoredIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.record_write(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.activity.set_write_blocked(result.is_pending());
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.record_write(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Writes the whole response to a request head that did not arrive in time. hyper has no request to respond to yet.
fn request_timeout() -> Vec<u8> {
    let id = RequestId::new().to_string();
    let error = ClientError::new(Reason::RequestTimeout, "the request head took too long to arrive");
    let body = error.body(&id);
    let mut response = format!(
        "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\ncache-control: no-store\r\nx-request-id: {id}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    response.extend_from_slice(&body);
    response
}
