//! The body of a response, which keeps its request counted as in flight until the last of its data was written.
//!
//! hyper takes the body out of the response and queues its data for as long as the peer reads slowly, so the end of the body
//! is not the end of the response. It drops data when they are written; here, the data hold the count.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::body::{Frame, SizeHint};

use super::activity::InFlight;
use crate::respond::Body;

/// The body of the response to a request in flight.
pub(super) struct CountedBody {
    body: Body,
    /// `None` once the last data hold it.
    in_flight: Option<InFlight>,
}

/// A part of a body, queued to be written.
pub(super) struct ResponseData {
    bytes: Bytes,
    _in_flight: Option<InFlight>,
}

impl CountedBody {
    pub(super) fn new(body: Body, in_flight: InFlight) -> Self {
        Self { body, in_flight: Some(in_flight) }
    }
}

impl hyper::body::Body for CountedBody {
    type Data = ResponseData;
    type Error = <Body as hyper::body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<ResponseData>, Self::Error>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => return Poll::Ready(None),
        };
        if let (Some(data), Some(in_flight)) = (frame.data_ref(), &self.in_flight) {
            in_flight.record_data(data.len());
        }
        let is_last = self.body.is_end_stream();
        Poll::Ready(Some(Ok(frame.map_data(|bytes| {
            let in_flight = if is_last { self.in_flight.take() } else { self.in_flight.clone() };
            ResponseData { bytes, _in_flight: in_flight }
        }))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Buf for ResponseData {
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
