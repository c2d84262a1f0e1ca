//! Errors of the way to Refold, and the table that maps them to a caller's errors.

use std::time::Duration;

use super::health::CircuitOpen;
use crate::error::{ClientError, Reason};
use crate::http_client::TransportError;
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

/// The error for an exchange without a complete response.
#[must_use]
pub(super) fn transport(error: TransportError) -> ClientError {
    match error {
        TransportError::Unreachable => ClientError::new(Reason::UpstreamUnreachable, "Refold can't be reached"),
        TransportError::Timeout => ClientError::new(Reason::UpstreamTimeout, "Refold did not respond in time"),
        TransportError::TooLarge { limit } => {
            let message = format!("Refold's response is larger than {limit} bytes");
            ClientError::new(Reason::UpstreamResponseTooLarge, message)
        }
        TransportError::InvalidResponse => {
            ClientError::new(Reason::UpstreamInvalidResponse, "Refold's response is not valid HTTP or ended early")
        }
    }
}

/// The error while the circuit is open.
#[must_use]
pub(super) fn circuit_open(open: CircuitOpen) -> ClientError {
    let message = "Refold failed several times in a row, so no requests are sent to it for a moment";
    ClientError::new(Reason::UpstreamCircuitOpen, message).retry_after(open.retry_after)
}

/// The error if the org key's budget at Refold is used up for longer than a fetch may wait.
#[must_use]
pub(super) fn budget_exceeded(exhausted: Exhausted) -> ClientError {
    let message = "the org's request budget at Refold is used up; try again later";
    ClientError::new(Reason::UpstreamBudgetExceeded, message).retry_after(exhausted.retry_after)
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
    let message = "too many session tokens that Refold has not seen yet; try again later";
    ClientError::new(Reason::RateLimitExceeded, message).retry_after(retry_after)
}
