//! The responses to requests that hyper does not pass on: heads that it can't parse, or that are too large for it, and heads
//! that do not arrive in time. Each has the documented body, one log line and one count, as every other refusal.

use std::sync::Arc;

use http::StatusCode;
use memchr::memmem;

use crate::error::{ClientError, Reason};
use crate::generation::ActiveGeneration;
use crate::request::RequestId;
use crate::request::peer::Peer;

/// Makes the responses to requests of one connection that hyper does not pass on.
#[derive(Clone, Debug)]
pub(super) struct HeadRefusals {
    /// `None` for a connection without a gateway.
    active: Option<Arc<ActiveGeneration>>,
    peer: Peer,
}

impl HeadRefusals {
    /// Refusals of a peer that the active gateway records.
    pub(super) fn recorded_by(active: &Arc<ActiveGeneration>, peer: Peer) -> Self {
        Self { active: Some(Arc::clone(active)), peer }
    }

    /// Refusals of a connection without a gateway.
    #[cfg(test)]
    pub(super) fn unrecorded() -> Self {
        Self { active: None, peer: Peer::Unknown }
    }

    /// The response to a head that did not arrive in time.
    pub(super) fn too_slow(&self) -> Vec<u8> {
        self.response(&ClientError::new(Reason::RequestTimeout, "the request head took too long to arrive"))
    }

    /// The response to plain HTTP on a port that serves TLS.
    pub(super) fn without_tls(&self) -> Vec<u8> {
        self.response(&ClientError::new(Reason::MalformedRequest, "this port serves HTTPS: use https:// in the URL"))
    }

    /// The response in place of one that hyper writes by itself; `None` for any other bytes. hyper's have no body, and no
    /// `x-request-id`, which all the gateway's responses have. `in_line` says that the request line was not read to its end.
    pub(super) fn in_place_of(&self, written: &[u8], in_line: bool) -> Option<Vec<u8>> {
        let status = written.strip_prefix(b"HTTP/1.1 ").or_else(|| written.strip_prefix(b"HTTP/1.0 "))?.get(..3)?;
        let status = StatusCode::from_bytes(status).ok().filter(StatusCode::is_client_error)?;
        if !written.ends_with(b"\r\n\r\n") || memmem::find(written, b"x-request-id").is_some() {
            return None;
        }
        let error = match status {
            StatusCode::URI_TOO_LONG => too_long(),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE if in_line => too_long(),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                ClientError::new(Reason::HeadersTooLarge, "the request has too many headers, or they are too large")
            }
            _ => ClientError::new(Reason::MalformedRequest, "the request is not valid HTTP"),
        };
        Some(self.response(&error))
    }

    /// Records a refusal, and returns its response, which is the last of its connection.
    fn response(&self, error: &ClientError) -> Vec<u8> {
        let active = self.active.as_ref();
        let id = active.map_or_else(RequestId::new, |active| active.gateway().record_unparsed(error, self.peer));
        let body = error.body(&id.to_string());
        let status = error.status();
        let mut response = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\ncache-control: no-store\r\nx-request-id: {id}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
            body.len()
        )
        .into_bytes();
        response.extend_from_slice(&body);
        response
    }
}

fn too_long() -> ClientError {
    ClientError::new(Reason::UriTooLong, "the request target is too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(written: &str, in_line: bool) -> Option<String> {
        let response = HeadRefusals::unrecorded().in_place_of(written.as_bytes(), in_line)?;
        Some(String::from_utf8(response).expect("UTF-8"))
    }

    #[test]
    fn a_bare_response_is_replaced_by_the_documented_one() {
        let (in_line, complete) = (true, false);
        for (bare, place, status, code) in [
            ("400 Bad Request", complete, 400, "MALFORMED_REQUEST"),
            ("400 Bad Request", in_line, 400, "MALFORMED_REQUEST"),
            ("414 URI Too Long", complete, 414, "URI_TOO_LONG"),
            ("431 Request Header Fields Too Large", in_line, 414, "URI_TOO_LONG"),
            ("431 Request Header Fields Too Large", complete, 431, "HEADERS_TOO_LARGE"),
        ] {
            let written = format!("HTTP/1.1 {bare}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            let response = replaced(&written, place).expect("it is hyper's own");
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
            assert!(response.contains(&format!("\"error_code\":\"{code}\"")), "{response}");
            assert!(response.contains("\r\nconnection: close\r\n"), "{response}");
        }
    }

    #[test]
    fn a_response_of_the_gateway_is_left_as_it_is() {
        for written in [
            "HTTP/1.1 404 Not Found\r\nx-request-id: 1\r\ncontent-length: 90\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 4",
            "",
        ] {
            assert_eq!(replaced(written, true), None, "{written}");
        }
    }
}
