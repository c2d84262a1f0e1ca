//! Ways for an upstream to go wrong, on demand.

use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};

/// A way to go wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The right answer, later.
    Latency(Duration),
    /// An error status.
    Status {
        /// Its number.
        code: u16,
        /// What comes with it.
        body: FaultBody,
    },
    /// 200, with JSON that is none.
    Garbage,
    /// 200, and the connection ends in the middle of the body.
    Truncate,
    /// No answer at all.
    Hang,
    /// The connection ends instead of an answer.
    Reset,
    /// 302 to another host.
    Redirect,
}

/// The body of an error status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultBody {
    /// The documented shape.
    Json,
    /// `error` instead of `error_code`, and fields missing.
    Variant,
    /// A proxy's page.
    Html,
    /// Nothing.
    Empty,
}

/// As in `x-simulate: status=503`.
impl FromStr for Fault {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (kind, value) = text.split_once('=').unwrap_or((text, ""));
        let status = |body| value.parse().map(|code| Self::Status { code, body }).map_err(|_| ());
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
            _ => Err(()),
        }
    }
}

/// Ends the connection instead of answering.
#[derive(Debug, thiserror::Error)]
#[error("the connection is reset on purpose")]
pub(super) struct Reset;

impl Fault {
    pub(super) async fn play(self, request_id: String) -> Result<Response<SimulatedBody>, Reset> {
        match self {
            Self::Hang => std::future::pending().await,
            Self::Reset => Err(Reset),
            Self::Latency(_) | Self::Garbage => Ok(json(200, "{\"docs\":[{\"_id\":\"65".into())),
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
                        r#"{{"status_code":{code},"http_error_type":"SIMULATED","error_code":"SIMULATED_FAULT","message":"This was asked for","request_id":"{request_id}"}}"#
                    ),
                ),
                FaultBody::Variant => {
                    json(code, r#"{"error":"SIMULATED_FAULT","message":"This was asked for"}"#.into())
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
    *response.body_mut() = SimulatedBody::of(body.into());
    response
}

pub(super) fn plain(status: u16, body: &'static str) -> Response<SimulatedBody> {
    let mut response = Response::new(SimulatedBody::of(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}

/// A body that may end before its time.
#[derive(Debug)]
pub(super) struct SimulatedBody {
    rest: Option<Bytes>,
    truncated: bool,
}

impl SimulatedBody {
    fn of(bytes: Bytes) -> Self {
        Self { rest: (!bytes.is_empty()).then_some(bytes), truncated: false }
    }

    pub(super) fn whole(response: Response<Bytes>) -> Response<Self> {
        response.map(Self::of)
    }
}

impl Body for SimulatedBody {
    type Data = Bytes;
    type Error = Reset;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reset>>> {
        Poll::Ready(match self.rest.take() {
            Some(bytes) => Some(Ok(Frame::data(bytes))),
            None if self.truncated => Some(Err(Reset)),
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
