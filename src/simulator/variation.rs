//! Responses that HTTP and JSON allow, though Refold's documentation does not show them.

use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Response, StatusCode};
use jiff::Timestamp;

/// A variation of regular responses.
///
/// Its text form is `bom`, `encoded-304`, `action=204` (any 2xx) or `retry-date=30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variation {
    /// A byte order mark stands before the JSON.
    ByteOrderMark,
    /// A 304 has `Content-Encoding: gzip`, as from a proxy that adds it to every response.
    EncodedNotModified,
    /// `stop` and `rerun` succeed with this status and no body.
    ActionStatus(StatusCode),
    /// 429, whose `Retry-After` is a date this far ahead.
    RetryDate(Duration),
}

impl FromStr for Variation {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once('=').unwrap_or((text, "")) {
            ("bom", "") => Ok(Self::ByteOrderMark),
            ("encoded-304", "") => Ok(Self::EncodedNotModified),
            ("action", status) => {
                let status: StatusCode = status.parse().map_err(|_| ())?;
                status.is_success().then_some(Self::ActionStatus(status)).ok_or(())
            }
            ("retry-date", ahead) => {
                let seconds: u32 = ahead.strip_suffix('s').and_then(|number| number.parse().ok()).ok_or(())?;
                Ok(Self::RetryDate(Duration::from_secs(seconds.into())))
            }
            _ => Err(()),
        }
    }
}

impl Variation {
    /// Varies the regular response to a request.
    pub(super) fn apply(self, method: &Method, mut response: Response<Bytes>, now: Timestamp) -> Response<Bytes> {
        match self {
            Self::ByteOrderMark if !response.body().is_empty() => {
                let body = ["\u{feff}".as_bytes(), response.body()].concat();
                response.map(|_| body.into())
            }
            Self::EncodedNotModified if response.status() == StatusCode::NOT_MODIFIED => {
                response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                response
            }
            Self::ActionStatus(status) if method == Method::POST && response.status().is_success() => {
                *response.status_mut() = status;
                response.headers_mut().remove(CONTENT_TYPE);
                response.map(|_| Bytes::new())
            }
            Self::RetryDate(ahead) => {
                let date = (now + ahead).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
                let mut refusal = Response::new(Bytes::new());
                *refusal.status_mut() = StatusCode::TOO_MANY_REQUESTS;
                let date = HeaderValue::try_from(date).expect("a date is visible ASCII");
                refusal.headers_mut().insert(RETRY_AFTER, date);
                refusal
            }
            Self::ByteOrderMark | Self::EncodedNotModified | Self::ActionStatus(_) => response,
        }
    }
}
