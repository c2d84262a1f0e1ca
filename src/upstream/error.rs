//! Errors of requests to Refold, as callers receive them.

use std::borrow::Cow;
use std::time::Duration;

use super::health::CircuitOpen;
use crate::error::{ClientError, Reason};
use crate::http_client::{TransportError, TransportErrorKind};
use crate::limit::Exhausted;

/// The reason why a fetch has no result.
#[derive(Debug)]
pub enum FetchError {
    /// The fetch failed.
    Failed(ClientError),
    /// The fetch was cancelled before it was sent, since every caller that waited for it disconnected.
    NoDemand,
}

impl From<ClientError> for FetchError {
    fn from(error: ClientError) -> Self {
        Self::Failed(error)
    }
}

/// The error for an exchange without a complete response; the transport error is its cause.
#[must_use]
pub(super) fn transport(error: TransportError) -> ClientError {
    let (reason, message): (_, Cow<'static, str>) = match error.kind() {
        TransportErrorKind::Unreachable => (Reason::UpstreamUnreachable, "Refold can't be reached".into()),
        TransportErrorKind::Timeout => (Reason::UpstreamTimeout, "Refold did not respond in time".into()),
        TransportErrorKind::TooLarge { limit } => {
            (Reason::UpstreamResponseTooLarge, format!("Refold's response is larger than {limit} bytes").into())
        }
        TransportErrorKind::Incomplete | TransportErrorKind::InvalidResponse => {
            (Reason::UpstreamInvalidResponse, "Refold's response is not valid HTTP or ended early".into())
        }
    };
    ClientError::new(reason, message).caused_by(error)
}

/// The error while the circuit is open.
#[must_use]
pub(super) fn circuit_open(open: CircuitOpen) -> ClientError {
    let message = "too many requests to Refold fail at present, so none are sent to it for a moment";
    ClientError::new(Reason::UpstreamCircuitOpen, message).retry_after(open.retry_after)
}

/// The error if the org key's budget at Refold is used up for longer than a fetch may wait.
#[must_use]
pub(super) fn budget_exceeded(exhausted: Exhausted) -> ClientError {
    let message =
        "the org's budget at Refold, which all callers share, is used up; try again after the seconds in Retry-After";
    ClientError::new(Reason::UpstreamBudgetExceeded, message).retry_after(exhausted.retry_after)
}

/// The error while Refold has asked a session token to pause.
#[must_use]
pub(super) fn token_paused(retry_after: Duration) -> ClientError {
    let message = "Refold limits the requests of this session token; try again after the seconds in Retry-After";
    ClientError::new(Reason::UpstreamBudgetExceeded, message).retry_after(retry_after)
}

/// The error if a request waited too long for one of the `max_concurrent` places.
#[must_use]
pub(super) fn too_many_in_flight() -> ClientError {
    let message = "too many requests to Refold are in flight; try again";
    ClientError::new(Reason::Overloaded, message).retry_after(Duration::from_secs(1))
}

/// The error if session tokens that Refold has not accepted yet have used up their budget.
#[must_use]
pub(super) fn too_many_unproven_tokens(retry_after: Duration) -> ClientError {
    let message = "the budget of session tokens that Refold has not accepted yet is used up; try again after the seconds in Retry-After";
    ClientError::new(Reason::RateLimitExceeded, message).retry_after(retry_after)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_operator_sees_the_transport_errors_cause_and_the_caller_does_not() {
        let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "tcp connect to 10.0.0.7 refused");
        for (kind, reason) in [
            (TransportErrorKind::Unreachable, Reason::UpstreamUnreachable),
            (TransportErrorKind::Timeout, Reason::UpstreamTimeout),
            (TransportErrorKind::TooLarge { limit: 7 }, Reason::UpstreamResponseTooLarge),
            (TransportErrorKind::Incomplete, Reason::UpstreamInvalidResponse),
            (TransportErrorKind::InvalidResponse, Reason::UpstreamInvalidResponse),
        ] {
            let error = transport(TransportError::caused_by(kind, &refused));
            assert!(error.is(reason), "{kind:?}");
            let cause = error.cause().expect("a cause").to_string();
            assert!(cause.ends_with(": tcp connect to 10.0.0.7 refused"), "{cause}");
            assert!(!String::from_utf8_lossy(&error.body("id")).contains("10.0.0.7"), "{kind:?}");
        }
    }
}
