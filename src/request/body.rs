//! The body of a caller's request.

use std::error::Error;
use std::fmt::Debug;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::config;
use crate::error::{ClientError, Reason};

/// Most content of a request that is read for the connection's sake alone.
const MAX_DISCARDED: usize = 64 << 10;
/// Longest time for which content is read for the connection's sake alone.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// The body of a caller's request.
///
/// A request can be answered before its content was read: it is refused, or its method has no use for content. HTTP/1.1
/// carries the next request behind the content, so content that is not read is discarded, up to 64 KiB and for 5 seconds. If
/// there is more, the connection closes after the response (RFC 9112, 9.3).
#[derive(Debug)]
pub struct CallerBody {
    /// `None` for a request without content, and once the content is given up.
    incoming: Option<Incoming>,
    /// Dropped when the content ends, or when it is given up.
    guard: Option<ContentGuard>,
    unread: UnreadContent,
}

/// Held while the content of a request is still to be read.
pub type ContentGuard = Box<dyn Debug + Send + Sync>;

/// The fate of content that its request has no use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnreadContent {
    /// Content is read and discarded, within bounds.
    Discarded,
    /// Content is left to the protocol: HTTP/2 resets the stream, and a client that expects `100 Continue` sends nothing.
    Left,
}

impl CallerBody {
    /// The body of a request. `guard` is dropped when its content ends. Part of the hit path.
    #[must_use]
    pub fn new(incoming: Incoming, guard: Option<ContentGuard>, unread: UnreadContent) -> Self {
        Self { incoming: Some(incoming).filter(|incoming| !incoming.is_end_stream()), guard, unread }
    }
}

impl Body for CallerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let frame = Pin::new(&mut *incoming).poll_frame(cx);
        let ended = match &frame {
            Poll::Ready(Some(Ok(_))) => incoming.is_end_stream(),
            Poll::Ready(Some(Err(_)) | None) => true,
            Poll::Pending => false,
        };
        if ended {
            (self.incoming, self.guard) = (None, None);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for CallerBody {
    /// Part of the hit path.
    fn drop(&mut self) {
        if self.unread == UnreadContent::Discarded && self.incoming.is_some() {
            let (incoming, guard) = (self.incoming.take(), self.guard.take());
            discard(Self { incoming, guard, unread: UnreadContent::Left });
        }
    }
}

/// Reads content in a task of its own and discards it.
#[cold]
fn discard(body: CallerBody) {
    if body.size_hint().lower() > MAX_DISCARDED as u64 {
        return;
    }
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(async move {
            // At the end of either bound, the body is dropped with its rest unread, and hyper closes the connection.
            let _ = timeout(DISCARD_TIMEOUT, for_each_data(&mut Limited::new(body, MAX_DISCARDED), |_| {})).await;
        });
    }
}

/// Reads a request body to its end.
///
/// # Errors
/// 413 if it is larger than `max_request_body`, 408 if it takes longer than `body_timeout`, 400 if it is not valid HTTP.
pub async fn read(body: CallerBody, config: &config::ServerConfig) -> Result<Bytes, ClientError> {
    read_within(body, config.max_request_body.as_usize(), config.body_timeout).await
}

/// Reads a request body of at most `limit` bytes to its end.
///
/// # Errors
/// As for [`read`].
pub async fn read_within(body: CallerBody, limit: usize, time: Duration) -> Result<Bytes, ClientError> {
    let body = bounded(body, limit)?;
    let read = timeout(time, body.collect()).await;
    let body = read.map_err(|_| too_slow())?.map_err(|error| broken(error, limit))?;
    Ok(body.to_bytes())
}

/// Reads a request body of at most `limit` bytes to its end, and passes each part of it to `take`.
///
/// # Errors
/// As for [`read`].
pub async fn stream_within(
    body: CallerBody,
    limit: usize,
    time: Duration,
    take: impl FnMut(Bytes),
) -> Result<(), ClientError> {
    let mut body = bounded(body, limit)?;
    let read = timeout(time, for_each_data(&mut body, take)).await;
    read.map_err(|_| too_slow())?.map_err(|error| broken(error, limit))
}

type ReadError = Box<dyn Error + Send + Sync>;

async fn for_each_data(body: &mut Limited<CallerBody>, mut take: impl FnMut(Bytes)) -> Result<(), ReadError> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            take(data);
        }
    }
    Ok(())
}

/// Checks the declared length of a body, before it is read.
///
/// # Errors
/// 413 if it is larger than `limit`.
pub fn check_length(body: &CallerBody, limit: usize) -> Result<(), ClientError> {
    if body.size_hint().lower() > limit as u64 { Err(too_large(limit)) } else { Ok(()) }
}

fn bounded(body: CallerBody, limit: usize) -> Result<Limited<CallerBody>, ClientError> {
    check_length(&body, limit)?;
    Ok(Limited::new(body, limit))
}

fn too_large(limit: usize) -> ClientError {
    ClientError::new(Reason::PayloadTooLarge, format!("the request body is larger than {limit} bytes"))
}

fn too_slow() -> ClientError {
    ClientError::new(Reason::RequestTimeout, "the request body took too long to arrive")
}

fn broken(error: ReadError, limit: usize) -> ClientError {
    if error.is::<LengthLimitError>() {
        return too_large(limit);
    }
    let invalid = ClientError::new(Reason::MalformedRequest, "the request body is not valid HTTP or ended early");
    match error.downcast::<hyper::Error>() {
        Ok(cause) => invalid.caused_by(cause),
        Err(_) => invalid,
    }
}
