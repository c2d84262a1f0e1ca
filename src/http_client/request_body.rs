//! Bodies of requests to the server.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::error::BodyError;

/// The body of a request: buffered, so that the request can be sent again, or streamed from a caller.
pub type RequestBody = Either<Full<Bytes>, ForwardedUpload>;

/// Makes a body of bytes in memory.
#[must_use]
pub fn buffered(bytes: Bytes) -> RequestBody {
    Either::Left(Full::new(bytes))
}

/// Makes a body that is sent while it arrives. More than `limit` bytes, or a pause of the caller's longer than `idle_timeout`,
/// end it with an error.
#[must_use]
pub fn streamed(
    body: impl Body<Data = Bytes, Error = hyper::Error> + Send + Sync + 'static,
    limit: usize,
    idle_timeout: Duration,
) -> RequestBody {
    let upload = Upload {
        start: Instant::now(),
        moved: AtomicU64::new(0),
        has_ended: AtomicBool::new(false),
        failure: OnceLock::new(),
    };
    Either::Right(ForwardedUpload {
        body: Limited::new(body.boxed(), limit),
        idle_timeout,
        pause: None,
        upload: Arc::new(upload),
    })
}

/// Returns the progress of a request's body, if it is streamed.
#[must_use]
pub fn upload(body: &RequestBody) -> Option<Arc<Upload>> {
    match body {
        Either::Left(_) => None,
        Either::Right(body) => Some(Arc::clone(&body.upload)),
    }
}

/// A body that is sent while it arrives.
#[derive(Debug)]
pub struct ForwardedUpload {
    body: Limited<BoxBody<Bytes, hyper::Error>>,
    idle_timeout: Duration,
    /// The timer while the caller pauses. Time in which the server does not read is not the caller's.
    pause: Option<Pin<Box<Sleep>>>,
    upload: Arc<Upload>,
}

/// The progress of a streamed body.
#[derive(Debug)]
pub struct Upload {
    start: Instant,
    /// When the last part was sent, in milliseconds after `start`.
    moved: AtomicU64,
    has_ended: AtomicBool,
    failure: OnceLock<UploadFailure>,
}

/// The caller's fault because of which a body ended with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadFailure {
    /// The caller paused for too long.
    Slow,
    /// The body is too large.
    TooLarge,
    /// The body is invalid, or the caller has disconnected.
    Broken,
}

impl Upload {
    /// Returns the reason why the body ended with an error.
    #[must_use]
    pub fn failure(&self) -> Option<UploadFailure> {
        self.failure.get().copied()
    }

    /// Returns true once the last part was sent.
    #[must_use]
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// Returns when the last part was sent.
    #[must_use]
    pub(super) fn moved(&self) -> Instant {
        self.start + Duration::from_millis(self.moved.load(Ordering::Relaxed))
    }

    fn move_on(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(elapsed, Ordering::Relaxed);
    }

    fn fail(&self, failure: UploadFailure) {
        let _ = self.failure.set(failure);
    }
}

impl Body for ForwardedUpload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.pause = None;
            self.upload.move_on();
            if matches!(frame, None | Some(Err(_))) || self.is_end_stream() || self.size_hint().exact() == Some(0) {
                self.upload.has_ended.store(true, Ordering::Relaxed);
            }
            if let Some(Err(error)) = &frame {
                let too_large = error.is::<LengthLimitError>();
                self.upload.fail(if too_large { UploadFailure::TooLarge } else { UploadFailure::Broken });
            }
            return Poll::Ready(frame);
        }
        let idle_timeout = self.idle_timeout;
        let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(idle_timeout)));
        if pause.as_mut().poll(cx).is_ready() {
            self.upload.fail(UploadFailure::Slow);
            return Poll::Ready(Some(Err("the request body took too long to arrive".into())));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
