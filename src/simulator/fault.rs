//! Faults of an upstream that a test or a demonstration can request.

use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};

use super::contrary::ContrarySet;
use super::variation::Variation;

/// A fault of the simulated Refold.
///
/// Its text form, which `x-simulate` and `POST /simulate/…` take, is the variant in lower case, with a value for some:
/// `latency=250ms`, `status=503`, `variant=404`, `html=502`, `empty=500`, `garbage`, `truncate`, `hang`, `reset`, `redirect`,
/// `contrary=` with a [`ContrarySet`], or that of a [`Variation`]. A status is a final one, 200 to 599.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The regular response, after a delay.
    Latency(Duration),
    /// An error status.
    Status {
        /// Its status code.
        code: u16,
        /// Its body.
        body: FaultBody,
    },
    /// 200 with malformed JSON.
    Garbage,
    /// 200, and the connection closes in the middle of the body.
    Truncate,
    /// No response; the connection stays open.
    Hang,
    /// The connection closes without a response.
    Reset,
    /// 302 to another host.
    Redirect,
    /// The regular response, varied.
    Variation(Variation),
    /// Lists that contradict each other.
    Contrary(ContrarySet),
}

/// The body of an error status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultBody {
    /// The documented JSON error.
    Json,
    /// JSON with the member `error` instead of `error_code`, and with members missing.
    Variant,
    /// An HTML page, as proxies send it.
    Html,
    /// No body.
    Empty,
}

impl FromStr for Fault {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (kind, value) = text.split_once('=').unwrap_or((text, ""));
        let code = || value.parse().ok().filter(|code| (200..600).contains(code)).ok_or(());
        let status = |body| code().map(|code| Self::Status { code, body });
        match kind {
            "latency" => {
                let milliseconds = value.strip_suffix("ms").and_then(|number| number.parse().ok()).ok_or(())?;
                Ok(Self::Latency(Duration::from_millis(milliseconds)))
            }
            "status" => status(FaultBody::Json),
            "variant" => status(FaultBody::Variant),
            "html" => status(FaultBody::Html),
            "empty" => status(FaultBody::Empty),
            "garbage" => Ok(Self::Garbage),
            "truncate" => Ok(Self::Truncate),
            "hang" => Ok(Self::Hang),
            "reset" => Ok(Self::Reset),
            "redirect" => Ok(Self::Redirect),
            "contrary" => value.parse().map(Self::Contrary),
            _ => text.parse().map(Self::Variation),
        }
    }
}

/// Makes hyper close the connection without completing the response.
#[derive(Debug, thiserror::Error)]
#[error("the simulated fault closes the connection")]
pub(super) struct ConnectionReset;

impl Fault {
    /// Produces the faulty response.
    pub(super) async fn respond(self, request_id: String) -> Result<Response<SimulatedBody>, ConnectionReset> {
        match self {
            Self::Hang => std::future::pending().await,
            Self::Reset => Err(ConnectionReset),
            Self::Latency(_) | Self::Variation(_) | Self::Contrary(_) | Self::Garbage => {
                Ok(json(200, "{\"docs\":[{\"_id\":\"65".into()))
            }
            Self::Truncate => {
                let mut response = json(200, "{\"docs\":[{\"_id\":".into());
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("5000"));
                response.body_mut().truncated = true;
                Ok(response)
            }
            Self::Redirect => {
                let mut response = plain(302, "");
                response.headers_mut().insert(LOCATION, HeaderValue::from_static("http://127.0.0.1:9/elsewhere"));
                Ok(response)
            }
            Self::Status { code, body } => Ok(match body {
                FaultBody::Json => json(
                    code,
                    format!(
                        r#"{{"status_code":{code},"http_error_type":"SIMULATED","error_code":"SIMULATED_FAULT","message":"This fault was requested","request_id":"{request_id}"}}"#
                    ),
                ),
                FaultBody::Variant => {
                    json(code, r#"{"error":"SIMULATED_FAULT","message":"This fault was requested"}"#.into())
                }
                FaultBody::Html => plain(code, "<html><body><h1>Bad gateway</h1></body></html>"),
                FaultBody::Empty => plain(code, ""),
            }),
        }
    }
}

fn json(status: u16, body: String) -> Response<SimulatedBody> {
    let mut response = plain(status, "");
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.body_mut() = SimulatedBody::new(body.into());
    response
}

pub(super) fn plain(status: u16, body: &'static str) -> Response<SimulatedBody> {
    let mut response = Response::new(SimulatedBody::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}

/// A body that can end before its `Content-Length`.
#[derive(Debug)]
pub(super) struct SimulatedBody {
    rest: Option<Bytes>,
    truncated: bool,
}

impl SimulatedBody {
    fn new(bytes: Bytes) -> Self {
        Self { rest: (!bytes.is_empty()).then_some(bytes), truncated: false }
    }

    pub(super) fn whole(response: Response<Bytes>) -> Response<Self> {
        response.map(Self::new)
    }
}

impl Body for SimulatedBody {
    type Data = Bytes;
    type Error = ConnectionReset;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ConnectionReset>>> {
        Poll::Ready(match self.rest.take() {
            Some(bytes) => Some(Ok(Frame::data(bytes))),
            None if self.truncated => Some(Err(ConnectionReset)),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && !self.truncated
    }

    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            _ if self.truncated => SizeHint::new(),
            rest => SizeHint::with_exact(rest.as_ref().map_or(0, |bytes| bytes.len() as u64)),
        }
    }
}
