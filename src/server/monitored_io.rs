//! A connection's socket, which reports reads and writes to the connection's activity and ends the input of a connection that
//! has timed out.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::{ConnectionActivity, DrainPhase};
use super::admission::Admission;
use super::frame_budget::FrameCounter;
use crate::error::{ClientError, Reason};
use crate::request::RequestId;

/// The first bytes of an HTTP/2 connection (RFC 9113, 3.4), on which no HTTP/1.1 response can be written.
const HTTP_2_PREFACE: &[u8] = b"PRI ";

/// Bytes of a PING frame (RFC 9113, 6.7), the largest frame that an idle HTTP/2 connection sends from time to time.
const PING_FRAME: usize = 17;

/// Most bytes of request bodies that an HTTP/2 connection keeps until they are read (RFC 9113, 6.9.2), and one of its streams.
pub(super) const CONNECTION_WINDOW: u32 = 256 << 10;
pub(super) const STREAM_WINDOW: u32 = 128 << 10;

/// A socket that reports reads and writes.
#[derive(Debug)]
pub(super) struct MonitoredIo<S> {
    stream: S,
    activity: Arc<ConnectionActivity>,
    admission: Arc<Admission>,
    /// Most bytes of a request head that hyper keeps.
    largest_head: usize,
    has_read: bool,
    /// Counts frames, on an HTTP/2 connection.
    frames: Option<FrameCounter>,
}

impl<S> MonitoredIo<S> {
    pub(super) fn new(
        stream: S,
        activity: Arc<ConnectionActivity>,
        admission: Arc<Admission>,
        largest_head: usize,
    ) -> Self {
        Self { stream, activity, admission, largest_head, has_read: false, frames: None }
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
        if self.activity.is_flooded() {
            // The next phase wakes the connection's task.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let new = buffer.filled().get(before..).unwrap_or_default();
        if read.is_ready() && !new.is_empty() {
            if !self.has_read {
                self.has_read = true;
                if new.starts_with(HTTP_2_PREFACE) {
                    self.activity.set_http_2(true);
                    self.frames = Some(FrameCounter::new());
                }
            }
            if let Some(frames) = &mut self.frames {
                let empty = frames.count(new);
                self.activity.record_empty_frames(empty);
            }
            let bodies = if self.activity.is_http_2() { CONNECTION_WINDOW as usize } else { 0 };
            if self.activity.record_read(new.len(), self.largest_head + bodies) {
                self.admission.relieve_memory();
            }
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MonitoredIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.record_write(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.activity.set_write_blocked(result.is_pending());
        result
    }

    /// Ends the output. A connection that drains then reads until its peer closes, or the monitor drops it: if the socket were
    /// closed with input unread, the kernel would reset the connection and discard what it has not sent (RFC 9112, 9.6).
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.activity.is_half_closed() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            if self.activity.phase() < DrainPhase::Closing {
                return Poll::Ready(Ok(()));
            }
            self.activity.set_half_closed();
        }
        let mut discarded = [0; 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut discarded);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.activity.record_event();
        }
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::lifecycle::Lifecycle;
    use crate::server::admission::Bounds;

    #[tokio::test]
    async fn a_draining_connection_reads_until_its_peer_closes() {
        for (phase, waits) in [(DrainPhase::Serving, false), (DrainPhase::Closing, true)] {
            let activity = Arc::new(ConnectionActivity::new(
                Arc::new(Lifecycle::new(jiff::Timestamp::UNIX_EPOCH)),
                Arc::default(),
            ));
            activity.advance(phase);
            let (mut peer, stream) = duplex(64);
            let admission = Arc::new(Admission::new(Bounds { connections: 1, unidentified_bytes: 1 }));
            let mut io = MonitoredIo::new(stream, Arc::clone(&activity), admission, 1);
            io.write_all(b"response").await.expect("it fits");
            {
                let mut shutdown = pin!(io.shutdown());
                let pending = poll_fn(|cx| Poll::Ready(shutdown.as_mut().poll(cx).is_pending())).await;
                assert_eq!((pending, activity.is_half_closed()), (waits, waits));
                if waits {
                    peer.write_all(b"late").await.expect("it is read");
                    let events = activity.events();
                    assert!(poll_fn(|cx| Poll::Ready(shutdown.as_mut().poll(cx).is_pending())).await);
                    assert!(activity.events() > events);
                }
                let mut response = String::new();
                peer.read_to_string(&mut response).await.expect("UTF-8");
                assert_eq!(response, "response");
                drop(peer);
                if waits {
                    shutdown.await.expect("the peer has closed");
                }
            }
        }
    }
}
