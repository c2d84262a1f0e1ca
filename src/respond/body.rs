//! The body of a response: complete, or streamed from the upstream.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{Either, Full};
use hyper::body::{Frame, SizeHint};

use crate::http_client::BodyError;

/// The body of a response: complete, or streamed from the upstream.
pub type Body = Either<Full<Bytes>, StreamedBody>;

/// A body that is streamed from the upstream, of any type.
#[derive(Debug)]
pub struct StreamedBody(UnsyncBoxBody<Bytes, BodyError>);

impl StreamedBody {
    pub(super) fn new<B>(body: B) -> Self
    where
        B: hyper::body::Body<Data = Bytes, Error = BodyError> + Send + 'static,
    {
        Self(UnsyncBoxBody::new(body))
    }
}

impl hyper::body::Body for StreamedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
