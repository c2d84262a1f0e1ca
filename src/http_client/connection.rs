//! One keep-alive connection: HTTP/1.1, one request at a time.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::connect::Io;
use super::error::{TransportError, TransportErrorKind};
use super::request_body::RequestBody;
use super::stream::{Arrivals, CountedStream, Received};

/// A connection without a request in flight.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<RequestBody>,
    received: Received,
    /// The number of the connection in its pool, in the order in which they were opened.
    pub(super) number: u64,
    /// From this moment on the connection is not used for another request.
    pub(super) retires: Instant,
}

/// The reason why a request has no response.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most failures are an unsent request, which is moved once")]
pub(super) enum SendFailure {
    /// The connection ended before any byte of the request was sent.
    Unsent(Request<RequestBody>),
    /// The connection ended before any byte of a response arrived; the server may have processed the request.
    NoAnswer(TransportError),
    /// A part of a response arrived, or it is invalid.
    BrokenAnswer(TransportError),
}

impl From<SendFailure> for TransportError {
    fn from(failure: SendFailure) -> Self {
        match failure {
            SendFailure::Unsent(_) => TransportErrorKind::Unreachable.into(),
            SendFailure::NoAnswer(error) | SendFailure::BrokenAnswer(error) => error,
        }
    }
}

impl Connection {
    /// Begins HTTP on an open connection.
    ///
    /// # Errors
    /// If the connection ends at once.
    pub(super) async fn begin(
        io: Box<dyn Io>,
        number: u64,
        retires: Instant,
        arrivals: Arc<Arrivals>,
    ) -> Result<Self, TransportError> {
        let received = Received::default();
        let io = TokioIo::new(CountedStream::new(io, received.clone(), arrivals));
        let (sender, connection) = http1::Builder::new()
            // Some servers send it; a client has to cope with it (RFC 9112, 5.1).
            .allow_spaces_after_header_name_in_responses(true)
            // As above (RFC 9112, 5.2).
            .allow_obsolete_multiline_headers_in_responses(true)
            .handshake(io)
            .await
            .map_err(|error| no_response(&error))?;
        tokio::spawn(async move {
            // The request on this connection gets the error too.
            let _ = connection.await;
        });
        Ok(Self { sender, received, number, retires })
    }

    /// The count of the bytes that arrived.
    pub(super) fn received(&self) -> &Received {
        &self.received
    }

    /// Returns true if the server has closed the connection.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Returns true if the last request was sent whole and its response read whole.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Waits until [`Self::is_ready`]; returns false if the connection ends.
    pub(super) async fn ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Sends a request, and waits for the head of the response.
    pub(super) async fn send(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>, SendFailure> {
        // The connection may still be reading the end of the previous response.
        if self.sender.ready().await.is_err() {
            return Err(SendFailure::Unsent(request));
        }
        let before = self.received.bytes();
        self.sender.try_send_request(request).await.map_err(|mut failed| match failed.take_message() {
            Some(unsent) => SendFailure::Unsent(unsent),
            None if self.received.bytes() == before => SendFailure::NoAnswer(no_response(failed.error())),
            None => SendFailure::BrokenAnswer(no_response(failed.error())),
        })
    }
}

fn no_response(error: &hyper::Error) -> TransportError {
    let kind = if error.is_parse() { TransportErrorKind::InvalidResponse } else { TransportErrorKind::Unreachable };
    TransportError::caused_by(kind, error)
}
