//! Errors that replicas of a fleet tell each other.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{ClientError, Kind, Reason, UpstreamErrorFields};

/// Reasons for which one replica's fetch fails those of all others that wait for it. A circuit and the load are each replica's own.
const SHARED: [Reason; 5] = [
    Reason::UpstreamTimeout,
    Reason::UpstreamInvalidResponse,
    Reason::UpstreamResponseTooLarge,
    Reason::UpstreamUnreachable,
    Reason::UpstreamBudgetExceeded,
];

/// An error of a fetch, in the form in which another replica receives it.
#[derive(Debug, Deserialize, Serialize)]
pub struct SharedError {
    status: u16,
    /// True for Refold's own error.
    of_refold: bool,
    http_error_type: String,
    error_code: String,
    message: String,
    request_id: Option<String>,
    retry_after: Option<u64>,
}

impl SharedError {
    /// The error in its shared form; `None` if another replica may fare better, or the error is about the credential.
    #[must_use]
    pub fn of(error: &ClientError) -> Option<Self> {
        let of_refold = error.0.kind == Kind::Upstream;
        let about_caller = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS];
        let is_shared = if of_refold {
            !about_caller.contains(&error.status()) && error.headers().is_empty()
        } else {
            SHARED.iter().any(|reason| error.is(*reason))
        };
        is_shared.then(|| Self {
            status: error.status().as_u16(),
            of_refold,
            http_error_type: error.0.http_error_type.clone().into_owned(),
            error_code: error.0.error_code.clone().into_owned(),
            message: error.0.message.clone().into_owned(),
            request_id: error.0.upstream_request_id.clone(),
            retry_after: error.retry_after_seconds(),
        })
    }

    /// The error that it was made of; `None` if a later version has sent one that this one does not know.
    #[must_use]
    pub fn into_error(self) -> Option<ClientError> {
        let error = if self.of_refold {
            let fields = UpstreamErrorFields {
                http_error_type: Some(self.http_error_type),
                error_code: Some(self.error_code),
                message: Some(self.message),
                request_id: self.request_id,
            };
            ClientError::from_upstream(StatusCode::from_u16(self.status).ok()?, fields)
        } else {
            let reason = SHARED.into_iter().find(|reason| reason.status_and_code().1 == self.error_code)?;
            ClientError::new(reason, Cow::Owned(self.message))
        };
        Some(match self.retry_after {
            Some(seconds) => error.retry_after(Duration::from_secs(seconds)),
            None => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_error_has_the_same_body_for_another_replica() {
        let fields = || UpstreamErrorFields { message: Some("no such execution".into()), ..Default::default() };
        let unavailable = ClientError::from_upstream(StatusCode::SERVICE_UNAVAILABLE, fields());
        for error in [
            ClientError::from_upstream(StatusCode::NOT_FOUND, fields()),
            unavailable.retry_after(Duration::from_secs(7)),
            ClientError::new(Reason::UpstreamTimeout, "late"),
            ClientError::new(Reason::UpstreamUnreachable, "down"),
            ClientError::new(Reason::UpstreamBudgetExceeded, "wait").retry_after(Duration::from_secs(3)),
        ] {
            let text = serde_json::to_string(&SharedError::of(&error).expect("it is shared")).expect("JSON");
            let received: SharedError = serde_json::from_str(&text).expect("JSON");
            let received = received.into_error().expect("it is known");
            assert_eq!(received.body("id"), error.body("id"));
            assert_eq!(
                (received.label(), received.retry_after_seconds()),
                (error.label(), error.retry_after_seconds())
            );
        }
    }

    #[test]
    fn what_another_replica_may_not_meet_is_not_shared() {
        for error in [
            ClientError::from_upstream(StatusCode::UNAUTHORIZED, UpstreamErrorFields::default()),
            ClientError::from_upstream(StatusCode::TOO_MANY_REQUESTS, UpstreamErrorFields::default()),
            ClientError::new(Reason::UpstreamCircuitOpen, "open"),
            ClientError::new(Reason::Overloaded, "full"),
        ] {
            assert!(SharedError::of(&error).is_none(), "{error:?}");
        }
    }
}
