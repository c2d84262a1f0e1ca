//! A connection's socket, which reports reads and writes to the connection's activity, ends the input of a connection that
//! has timed out, puts the documented responses in place of hyper's own, and closes in stages.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::{ConnectionActivity, DrainPhase};
use super::admission::Admission;
use super::frame_budget::FrameCounter;
use super::refusal::HeadRefusals;
use super::request_scan::RequestScan;

/// Bytes of a PING frame (RFC 9113, 6.7), the largest frame that an idle HTTP/2 connection sends from time to time.
const PING_FRAME: usize = 17;

/// Most bytes of request bodies that an HTTP/2 connection keeps until they are read (RFC 9113, 6.9.2), and one of its streams.
pub(super) const CONNECTION_WINDOW: u32 = 256 << 10;
pub(super) const STREAM_WINDOW: u32 = 128 << 10;
/// Most bytes that are read after the end of the output.
const MAX_LATE_INPUT: usize = 8 << 20;

/// A socket that reports reads and writes.
#[derive(Debug)]
pub(super) struct MonitoredIo<S> {
    stream: S,
    activity: Arc<ConnectionActivity>,
    admission: Arc<Admission>,
    /// Most bytes of a request head that hyper keeps.
    largest_head: usize,
    /// Counts frames, on an HTTP/2 connection.
    frames: Option<FrameCounter>,
    /// Follows the requests, on an HTTP/1.1 connection.
    requests: RequestScan,
    refusals: HeadRefusals,
    /// The response that is written in place of hyper's own.
    replacement: Option<Replacement>,
    /// The connection ends after a response that hyper does not know of.
    is_ending: bool,
    /// Bytes that were read after the end of the output.
    late_input: usize,
}

/// A response that is written in place of hyper's own.
#[derive(Debug)]
struct Replacement {
    response: Vec<u8>,
    written: usize,
}

impl<S> MonitoredIo<S> {
    /// Watches a socket, of whose request heads at most `largest_head` bytes are kept.
    pub(super) fn new(
        stream: S,
        activity: Arc<ConnectionActivity>,
        admission: Arc<Admission>,
        largest_head: usize,
        refusals: HeadRefusals,
    ) -> Self {
        Self {
            stream,
            activity,
            admission,
            largest_head,
            frames: None,
            requests: RequestScan::default(),
            refusals,
            replacement: None,
            is_ending: false,
            late_input: 0,
        }
    }

    /// Records that the connection is one of HTTP/2, as its first bytes tell: no HTTP/1.1 response can be written on it.
    pub(super) fn begin_http_2(&mut self, first: &[u8]) {
        self.activity.set_http_2();
        let frames = self.frames.insert(FrameCounter::new());
        self.activity.record_empty_frames(frames.count(first));
        self.activity.heads().clear();
        self.activity.record_frames();
    }

    /// Returns true if so many bytes are more than the answer to a ping.
    fn is_sign_of_life(&self, bytes: usize) -> bool {
        bytes > PING_FRAME || !self.activity.is_http_2()
    }

    /// Records that bytes are about to be written: once they are, their reader may be ahead of this thread.
    fn record_write_begun(&self, bytes: usize) {
        if self.is_sign_of_life(bytes) {
            self.activity.footprint().touch_known();
        }
    }

    fn record_write(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.activity.set_write_blocked(result.is_pending());
        if let Poll::Ready(Ok(bytes)) = result
            && self.is_sign_of_life(bytes)
        {
            self.activity.record_event();
        }
        result
    }

    /// Records bytes that were read. Returns the number of those, at the end, that hyper must not see. Part of the hit path.
    fn record_read(&mut self, new: &[u8]) -> usize {
        let mut most_buffered = self.largest_head;
        if let Some(frames) = &mut self.frames {
            most_buffered += CONNECTION_WINDOW as usize;
            self.activity.record_empty_frames(frames.count(new));
        }
        if self.activity.hold(new.len(), most_buffered) {
            self.admission.relieve_memory();
        }
        if self.activity.is_http_2() {
            self.activity.record_frames();
            0
        } else {
            let malformed = self.requests.read(new, |length| self.activity.heads().push(length));
            self.activity.set_in_head(self.requests.is_in_head());
            malformed
        }
    }

    /// Returns true if bytes are to be replaced: they are a response of hyper's own. Part of the hit path.
    fn replaces(&mut self, bytes: &[u8]) -> bool {
        // All other responses have a request, which is in flight until the last of its body was written.
        if self.replacement.is_none() && !self.activity.is_answering() && !self.activity.is_http_2() {
            // A head that was read to its end is the one that is refused.
            let in_line = self.activity.heads().is_empty() && self.requests.is_in_request_line();
            let response = self.refusals.in_place_of(bytes, in_line);
            self.replacement = response.map(|response| Replacement { response, written: 0 });
        }
        self.replacement.is_some()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> MonitoredIo<S> {
    /// Writes the replacement; returns `replaced`, the number of bytes that it replaces, once it is written whole.
    fn poll_replacement(&mut self, cx: &mut Context<'_>, replaced: usize) -> Poll<io::Result<usize>> {
        while let Some(Replacement { response, written }) = &mut self.replacement {
            let rest = &response[*written..];
            if rest.is_empty() {
                self.replacement = None;
                break;
            }
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                more => *written += more,
            }
        }
        Poll::Ready(Ok(replaced))
    }

    /// Ends the output, then reads until the peer closes, sends more than [`MAX_LATE_INPUT`], or the monitor drops the
    /// connection: if the socket were closed with input unread, the kernel would reset the connection and discard what it has
    /// not sent (RFC 9112, 9.6).
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.activity.set_ending();
        if !self.activity.is_half_closed() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.activity.set_half_closed();
        }
        let mut discarded = [0; 1024];
        while self.late_input < MAX_LATE_INPUT {
            let mut buffer = ReadBuf::new(&mut discarded);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            self.late_input += buffer.filled().len();
            self.activity.record_event();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for MonitoredIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.activity.phase() >= DrainPhase::InputEnded {
            if self.activity.abandon_head() {
                let response = self.refusals.too_slow();
                // One attempt, without waiting: a peer this slow has had its time.
                let _ = Pin::new(&mut self.stream).poll_write(cx, &response);
                self.is_ending = true;
            }
            // hyper finds the end of the input in the middle of a head, and closes the socket at once.
            return if self.is_ending { self.poll_close(cx) } else { Poll::Ready(Ok(())) };
        }
        if self.activity.footprint().is_flooded() {
            // The next phase wakes the connection's task.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let new = buffer.filled().get(before..).unwrap_or_default();
        if !new.is_empty() {
            let malformed = self.record_read(new);
            if malformed > 0 {
                // hyper finds the end of the input within the content: the request is refused, and is the last one.
                buffer.set_filled(buffer.filled().len() - malformed);
                self.activity.advance(DrainPhase::InputEnded);
            }
        } else if buffer.remaining() > 0 && self.activity.end_input() {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MonitoredIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.record_write_begun(bytes.len());
        let result = if self.replaces(bytes) {
            self.poll_replacement(cx, bytes.len())
        } else {
            Pin::new(&mut self.stream).poll_write(cx, bytes)
        };
        self.record_write(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.activity.set_write_blocked(result.is_pending());
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_close(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.record_write_begun(bytes.iter().map(|part| part.len()).sum());
        let result = match bytes {
            // hyper's own responses are one head without a body.
            [only] if self.replaces(only) => self.poll_replacement(cx, only.len()),
            _ => Pin::new(&mut self.stream).poll_write_vectored(cx, bytes),
        };
        self.record_write(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::lifecycle::Lifecycle;
    use crate::server::admission::Bounds;

    fn new_activity() -> Arc<ConnectionActivity> {
        Arc::new(ConnectionActivity::new(Arc::new(Lifecycle::new(jiff::Timestamp::UNIX_EPOCH)), Arc::default()))
    }

    fn monitored<S>(stream: S, activity: Arc<ConnectionActivity>) -> MonitoredIo<S> {
        let admission = Arc::new(Admission::new(Bounds { connections: 1, unidentified_bytes: 1 << 20 }));
        MonitoredIo::new(stream, activity, admission, 1 << 10, HeadRefusals::unrecorded())
    }

    #[tokio::test]
    async fn a_connection_reads_until_its_peer_closes() {
        for phase in [DrainPhase::Serving, DrainPhase::Closing] {
            let activity = new_activity();
            activity.advance(phase);
            let (mut peer, stream) = duplex(64);
            let mut io = monitored(stream, Arc::clone(&activity));
            io.write_all(b"response").await.expect("it fits");
            {
                let mut shutdown = pin!(io.shutdown());
                assert!(poll_fn(|cx| Poll::Ready(shutdown.as_mut().poll(cx).is_pending())).await);
                assert!(activity.is_half_closed());
                peer.write_all(b"late").await.expect("it is read");
                let events = activity.events();
                assert!(poll_fn(|cx| Poll::Ready(shutdown.as_mut().poll(cx).is_pending())).await);
                assert!(activity.events() > events);
                let mut response = String::new();
                peer.read_to_string(&mut response).await.expect("UTF-8");
                assert_eq!(response, "response");
                drop(peer);
                shutdown.await.expect("the peer has closed");
            }
        }
    }

    #[tokio::test]
    async fn a_peer_that_never_stops_sending_is_read_for_a_bounded_length() {
        let activity = new_activity();
        let (mut peer, stream) = duplex(1 << 20);
        let mut io = monitored(stream, Arc::clone(&activity));
        let sending = tokio::spawn(async move {
            let (mut sent, block) = (0, vec![b'x'; 1 << 16]);
            while peer.write_all(&block).await.is_ok() {
                sent += 1 << 16;
            }
            sent
        });
        io.shutdown().await.expect("the bound is reached");
        drop(io);
        let sent = sending.await.expect("no panic");
        assert!((MAX_LATE_INPUT..=MAX_LATE_INPUT + (2 << 20)).contains(&sent), "{sent}");
    }

    #[tokio::test]
    async fn a_replacement_is_written_whole_however_little_the_peer_reads() {
        let activity = new_activity();
        let (mut peer, stream) = duplex(16);
        let mut io = monitored(stream, activity);
        let writing = tokio::spawn(async move {
            io.write_all(b"HTTP/1.1 431 Request Header Fields Too Large\r\n\r\n").await.expect("the peer reads");
        });
        let mut response = String::new();
        peer.read_to_string(&mut response).await.expect("UTF-8");
        writing.await.expect("no panic");
        assert!(response.starts_with("HTTP/1.1 414 ") && response.ends_with('}'), "{response}");
    }
}
