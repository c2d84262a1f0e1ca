//! Bodies of responses: whole, or of the rest of the API as it comes in. The latter stream, and the org key is looked for on
//! the way: a body that shows it is cut off before it does.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::http_client::{Arriving, BodyError};
use crate::log_events;
use crate::tenant::Tenant;

/// A body that is passed on.
#[derive(Debug)]
pub struct ForwardedBody {
    body: Arriving,
    /// Whose key must not be in it; `None` if the caller has that key.
    keeps_secret: Option<Arc<Tenant>>,
    /// The end of what was passed on: a key may lie across two frames.
    tail: Vec<u8>,
}

impl ForwardedBody {
    /// Passes on a body in which a tenant's org keys must not be.
    #[must_use]
    pub fn new(body: Arriving, keeps_secret: Option<Arc<Tenant>>) -> Self {
        Self { body, keeps_secret, tail: Vec::new() }
    }

    fn shows_key(&mut self, data: &[u8]) -> bool {
        let Some(tenant) = &self.keeps_secret else { return false };
        let overlap = tenant.org_keys().longest().saturating_sub(1);
        // Where the frames meet, and then the frame itself, which is not copied.
        let before = self.tail.len();
        self.tail.extend_from_slice(&data[..data.len().min(overlap)]);
        let shown = tenant.org_keys().appear_in(&self.tail) || tenant.org_keys().appear_in(data);
        if data.len() >= overlap {
            self.tail.clear();
            self.tail.extend_from_slice(&data[data.len() - overlap..]);
        } else {
            let excess = (before + data.len()).saturating_sub(overlap);
            self.tail.drain(..excess);
        }
        shown
    }
}

impl hyper::body::Body for ForwardedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && self.shows_key(data)
        {
            tracing::error!(message = log_events::UPSTREAM_RESPONSE_CONTAINS_ORG_KEY);
            return Poll::Ready(Some(Err("the answer can't be shown".into())));
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
