//! The body of a caller's request.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;

use crate::config;
use crate::error::{ClientError, Reason};

/// Reads a request body to its end.
///
/// # Errors
/// 413 if it is larger than `max_request_body`, 408 if it takes longer than `body_timeout`, 400 if it is not valid HTTP.
pub async fn read(body: Incoming, config: &config::ServerConfig) -> Result<Bytes, ClientError> {
    read_within(body, config.max_request_body.as_usize(), config.body_timeout).await
}

/// Reads a request body of at most `limit` bytes to its end.
///
/// # Errors
/// As for [`read`].
pub async fn read_within(body: Incoming, limit: usize, time: Duration) -> Result<Bytes, ClientError> {
    let read = Limited::new(body, limit).collect();
    match tokio::time::timeout(time, read).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("the request body is larger than {limit} bytes");
            Err(ClientError::new(Reason::PayloadTooLarge, message))
        }
        Ok(Err(error)) => {
            let invalid =
                ClientError::new(Reason::MalformedRequest, "the request body is not valid HTTP or ended early");
            Err(match error.downcast::<hyper::Error>() {
                Ok(cause) => invalid.caused_by(cause),
                Err(_) => invalid,
            })
        }
        Err(_) => Err(ClientError::new(Reason::RequestTimeout, "the request body took too long to arrive")),
    }
}
