//! Bodies of responses from the server.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::error::{BodyError, TransportError, TransportErrorKind};
use super::pool::Lease;

/// The body of a response as it arrives, bounded in time and size.
///
/// Read to its last byte, it returns its connection to the pool; dropped before that, it closes the connection.
#[derive(Debug)]
pub struct ResponseBody {
    body: Incoming,
    lease: Option<Lease>,
    deadline: Instant,
    /// Longest pause of the server in a streamed body.
    idle_timeout: Option<Duration>,
    /// Only a streamed body needs it: [`ResponseBody::read`] has a timer of its own.
    timer: Option<Pin<Box<Sleep>>>,
    limit: usize,
    received: usize,
}

impl ResponseBody {
    pub(super) fn new(body: Incoming, lease: Lease, deadline: Instant, limit: usize) -> Self {
        let mut new = Self { body, lease: Some(lease), deadline, idle_timeout: None, timer: None, limit, received: 0 };
        if new.body.is_end_stream() {
            new.release_connection();
        }
        new
    }

    /// Also bounds the pauses of the server while the body streams.
    #[must_use]
    pub(super) fn with_idle_timeout(self, idle_timeout: Duration) -> Self {
        Self { idle_timeout: Some(idle_timeout), ..self }
    }

    /// Reads the body to its end. The bytes may be a slice of the connection's read buffer, which they keep in memory, so copy
    /// them before you store them.
    ///
    /// # Errors
    /// If the body is too slow, too large or invalid.
    pub async fn read(mut self) -> Result<Bytes, TransportError> {
        let deadline = self.deadline;
        let bytes = timeout_at(deadline, self.read_all()).await.map_err(|_| TransportErrorKind::Timeout)??;
        self.release_connection();
        Ok(bytes)
    }

    async fn read_all(&mut self) -> Result<Bytes, TransportError> {
        let too_large = TransportErrorKind::TooLarge { limit: self.limit };
        let content_length = self.body.size_hint().lower();
        if content_length > self.limit as u64 {
            return Err(too_large.into());
        }
        // Most bodies are one frame, which is not copied.
        let mut only = Bytes::new();
        let mut joined = BytesMut::new();
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| TransportError::caused_by(kind_of(&error), &error))?;
            let Ok(data) = frame.into_data() else { continue };
            if only.len() + joined.len() + data.len() > self.limit {
                return Err(too_large.into());
            }
            if only.is_empty() && joined.is_empty() {
                only = data;
                continue;
            }
            if joined.is_empty() {
                joined.reserve(usize::try_from(content_length).unwrap_or_default().max(only.len() + data.len()));
                joined.extend_from_slice(&only);
                only = Bytes::new();
            }
            joined.extend_from_slice(&data);
        }
        Ok(if joined.is_empty() { only } else { joined.freeze() })
    }

    fn release_connection(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.release();
        }
    }
}

/// Tells a body whose connection broke off from one that is not valid HTTP, such as a chunk size that is no number.
fn kind_of(error: &hyper::Error) -> TransportErrorKind {
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match cause.map(io::Error::kind) {
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => TransportErrorKind::InvalidResponse,
        _ => TransportErrorKind::Incomplete,
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let timed_out = || Poll::Ready(Some(Err(TransportError::from(TransportErrorKind::Timeout).into())));
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(_) if Instant::now() >= self.deadline => return timed_out(),
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let (deadline, idle_timeout) = (self.deadline, self.idle_timeout);
                // Begins with the wait: before it, the caller may have been the one that paused.
                let timer = self.timer.get_or_insert_with(|| {
                    let pause = idle_timeout.map(|idle_timeout| Instant::now() + idle_timeout);
                    Box::pin(sleep_until(pause.map_or(deadline, |pause| pause.min(deadline))))
                });
                return if timer.as_mut().poll(cx).is_ready() { timed_out() } else { Poll::Pending };
            }
        };
        self.timer = None;
        match &frame {
            None => self.release_connection(),
            Some(Ok(frame)) => {
                self.received += frame.data_ref().map_or(0, Bytes::len);
                if self.received > self.limit {
                    let too_large = TransportErrorKind::TooLarge { limit: self.limit };
                    return Poll::Ready(Some(Err(TransportError::from(too_large).into())));
                }
                // With a Content-Length the end is known now, and the recipient may not ask for it.
                if self.body.is_end_stream() {
                    self.release_connection();
                }
            }
            Some(Err(_)) => {}
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        // Always false, so that the body is polled to its end and returns its connection.
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
