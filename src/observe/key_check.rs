//! The checks of org keys: what Refold answered when it was asked whether it accepts one.

use jiff::Timestamp;
use serde::Serialize;

/// Refold's answer to the question whether it accepts an org key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyCheckResult {
    /// 2xx.
    Accepted,
    /// 401.
    Refused,
    /// Another status, or none. The key counts as accepted: requests of callers find out.
    Unclear,
}

impl KeyCheckResult {
    /// The value of the metrics' label `result`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Unclear => "unclear",
        }
    }
}

/// A check of one of a tenant's org keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct KeyCheck {
    /// The time of the answer.
    pub at: Timestamp,
    /// The key: `current` or `next`.
    pub key: &'static str,
    /// The answer.
    pub result: KeyCheckResult,
}
