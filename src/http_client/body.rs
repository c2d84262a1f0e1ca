//! Bodies on their way: what is sent, whole or as it comes in, and what arrives.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::TransportError;
use super::pool::Lease;

/// Why a body ended before its end.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request: whole, so that it can be sent twice, or passed on as it comes in, up to a bound.
pub type Outgoing = Either<Full<Bytes>, Limited<Incoming>>;

/// A body that is all here.
#[must_use]
pub fn whole(bytes: Bytes) -> Outgoing {
    Either::Left(Full::new(bytes))
}

/// The body of an answer, as it comes in: bounded in time and bytes. Read to its end it gives its connection back.
#[derive(Debug)]
pub struct Arriving {
    body: Incoming,
    lease: Option<Lease>,
    deadline: Instant,
    /// Made when the body is streamed: one that is read whole has a timer already.
    timer: Option<Pin<Box<Sleep>>>,
    limit: usize,
    seen: usize,
}

impl Arriving {
    pub(super) fn new(body: Incoming, lease: Lease, deadline: Instant, limit: usize) -> Self {
        Self { body, lease: Some(lease), deadline, timer: None, limit, seen: 0 }
    }

    /// Reads it whole. As of [`Reply::body`](super::Reply::body), whoever keeps it copies it.
    ///
    /// # Errors
    /// If it is too slow, too large or broken.
    pub async fn read(mut self) -> Result<Bytes, TransportError> {
        let deadline = self.deadline;
        let bytes = timeout_at(deadline, self.read_all()).await.map_err(|_| TransportError::Timeout)??;
        self.give_back();
        Ok(bytes)
    }

    async fn read_all(&mut self) -> Result<Bytes, TransportError> {
        let too_large = TransportError::TooLarge { limit: self.limit };
        let announced = self.body.size_hint().lower();
        if announced > self.limit as u64 {
            return Err(too_large);
        }
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(frame) = self.body.frame().await {
            let Ok(data) = frame.map_err(|_| TransportError::Broken)?.into_data() else { continue };
            if first.len() + rest.len() + data.len() > self.limit {
                return Err(too_large);
            }
            if first.is_empty() && rest.is_empty() {
                first = data;
                continue;
            }
            if rest.is_empty() {
                rest.reserve(usize::try_from(announced).unwrap_or_default().max(first.len() + data.len()));
                rest.extend_from_slice(&first);
                first = Bytes::new();
            }
            rest.extend_from_slice(&data);
        }
        Ok(if rest.is_empty() { first } else { rest.freeze() })
    }

    fn give_back(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let deadline = self.deadline;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(TransportError::Timeout.into())));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.give_back(),
            Some(Ok(frame)) => {
                self.seen += frame.data_ref().map_or(0, Bytes::len);
                if self.seen > self.limit {
                    return Poll::Ready(Some(Err(TransportError::TooLarge { limit: self.limit }.into())));
                }
            }
            Some(Err(_)) => {}
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        // Polled to its end, so that the connection is given back.
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
