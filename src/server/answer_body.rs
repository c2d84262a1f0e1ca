//! The body of a response, which keeps its request counted as under way until the last of its data is with the socket.
//!
//! The HTTP library takes a body from its response and queues it for as long as the peer reads slowly, so the end of the body
//! is not the end of the answer. The library drops data when they are written; the data here hold the count.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::body::{Frame, SizeHint};

use super::timeouts::InFlight;
use crate::respond::Body;

/// The body of a response to a request that is under way.
pub(super) struct AnswerBody {
    body: Body,
    /// `None` once the last data hold it.
    in_flight: Option<InFlight>,
}

/// Some of a body's data, queued to be written.
pub(super) struct AnswerData {
    bytes: Bytes,
    _in_flight: Option<InFlight>,
}

impl AnswerBody {
    pub(super) fn new(body: Body, in_flight: InFlight) -> Self {
        Self { body, in_flight: Some(in_flight) }
    }
}

impl hyper::body::Body for AnswerBody {
    type Data = AnswerData;
    type Error = <Body as hyper::body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<AnswerData>, Self::Error>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => return Poll::Ready(None),
        };
        let is_last = self.body.is_end_stream();
        Poll::Ready(Some(Ok(frame.map_data(|bytes| {
            let in_flight = if is_last { self.in_flight.take() } else { self.in_flight.clone() };
            AnswerData { bytes, _in_flight: in_flight }
        }))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Buf for AnswerData {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.bytes.copy_to_bytes(length)
    }
}
