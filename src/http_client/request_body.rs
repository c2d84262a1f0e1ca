//! Bodies of requests to the server.

use bytes::Bytes;
use http_body_util::{Either, Full, Limited};
use hyper::body::Incoming;

/// The body of a request: buffered, so that the request can be sent again, or streamed from a caller.
pub type RequestBody = Either<Full<Bytes>, Limited<Incoming>>;

/// Makes a body of bytes in memory.
#[must_use]
pub fn buffered(bytes: Bytes) -> RequestBody {
    Either::Left(Full::new(bytes))
}

/// Makes a body that is sent while it arrives; more than `limit` bytes end it with an error.
#[must_use]
pub fn streamed(body: Incoming, limit: usize) -> RequestBody {
    Either::Right(Limited::new(body, limit))
}
