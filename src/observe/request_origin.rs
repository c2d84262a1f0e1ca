//! The origin of a request, for its log line: its connection, and what its header fields say of its sender.

use http::HeaderName;
use http::header::USER_AGENT;
use http::request::Parts;
use opentelemetry::trace::TraceId;

use super::log_text::{push_address, push_bounded};
use super::traces::{TRACEPARENT, trace_of_caller};
use crate::config::TrustedProxy;
use crate::request::peer::Peer;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Most bytes of a `User-Agent` in a line.
const MAX_USER_AGENT: usize = 256;
/// Most bytes of the caller's own request id in a line.
const MAX_REQUEST_ID: usize = 128;

/// The connection and the head of a request. Borrows everything: only a line that is written reads the fields.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestOrigin<'a> {
    /// The other end of the connection.
    pub peer: Peer,
    /// The head of the request; `None` if it can't be parsed.
    pub head: Option<&'a Parts>,
    /// The proxies whose `Forwarded` and `X-Forwarded-For` name the sender.
    pub trusted_proxies: &'a [TrustedProxy],
}

impl RequestOrigin<'_> {
    /// Appends the fields of the line, and returns the caller's trace. Part of the hit path: one pass over the header fields.
    pub(super) fn push(&self, line: &mut Vec<u8>) -> Option<TraceId> {
        push_peer(line, b",\"peer\":\"", self.peer);
        let headers = &self.head?.headers;
        let sender = self.peer.sender(headers, self.trusted_proxies);
        if sender != self.peer {
            push_peer(line, b",\"forwarded_for\":\"", sender);
        }
        let (mut user_agent, mut request_id, mut has_trace) = (None, None, false);
        for (name, value) in headers {
            if *name == USER_AGENT {
                user_agent = Some(value);
            } else if *name == X_REQUEST_ID {
                request_id = Some(value);
            } else {
                has_trace |= *name == TRACEPARENT;
            }
        }
        if let Some(value) = user_agent {
            push_bounded(line, b",\"user_agent\":", value.as_bytes(), MAX_USER_AGENT);
        }
        if let Some(value) = request_id {
            push_bounded(line, b",\"caller_request_id\":", value.as_bytes(), MAX_REQUEST_ID);
        }
        has_trace.then(|| trace_of_caller(headers)).flatten()
    }
}

/// Appends a peer, unless it is unknown; `name` ends with the opening quotation mark.
fn push_peer(line: &mut Vec<u8>, name: &[u8], peer: Peer) {
    if peer != Peer::Unknown {
        line.extend_from_slice(name);
        push_address(line, peer);
        line.push(b'"');
    }
}
