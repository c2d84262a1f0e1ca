//! The body of a pass-through response: streamed to the caller without trailers, and ended with an error before it contains a
//! whole org key.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::http_client::{BodyError, ResponseBody};
use crate::log_events;
use crate::tenant::Tenant;

/// A response body on its way to a caller, scanned for the tenant's org keys.
#[derive(Debug)]
pub struct ForwardedBody {
    body: ResponseBody,
    /// The tenant whose org keys must not be in the body; `None` if the caller has the key itself.
    scan_for: Option<Arc<Tenant>>,
    /// The last bytes that were forwarded, one less than the longest key: a key may lie across two frames.
    tail: Vec<u8>,
}

impl ForwardedBody {
    /// Forwards a body, which ends with an error before the frame that completes an org key of the tenant `scan_for`.
    #[must_use]
    pub fn new(body: ResponseBody, scan_for: Option<Arc<Tenant>>) -> Self {
        Self { body, scan_for, tail: Vec::new() }
    }

    fn completes_org_key(&mut self, data: &[u8]) -> bool {
        let Some(tenant) = &self.scan_for else { return false };
        let keys = tenant.org_keys();
        let overlap = keys.longest().saturating_sub(1);
        // First the place where the frames meet, then the frame itself, without a copy of it.
        let before = self.tail.len();
        self.tail.extend_from_slice(&data[..data.len().min(overlap)]);
        let found = keys.appear_in(&self.tail) || keys.appear_in(data);
        if data.len() >= overlap {
            self.tail.clear();
            self.tail.extend_from_slice(&data[data.len() - overlap..]);
        } else {
            let excess = (before + data.len()).saturating_sub(overlap);
            self.tail.drain(..excess);
        }
        found
    }
}

impl hyper::body::Body for ForwardedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && frame.is_trailers()
        {
            // A recipient may discard trailers (RFC 9110, 6.5.1), which could contain an org key.
            return self.poll_frame(cx);
        }
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && self.completes_org_key(data)
        {
            tracing::error!(message = log_events::UPSTREAM_RESPONSE_CONTAINS_ORG_KEY);
            return Poll::Ready(Some(Err("the response contains an org key".into())));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
