//! `[log]`: the access log.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Share;
use crate::digest::{Hex, sha256};

/// Hexadecimal digits of a linked account's SHA-256 in the log.
const DIGITS: usize = 16;

/// The access log: one JSON line per request, on standard error.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Requests that are logged; those that change something at Refold always are.
    pub requests: LoggedRequests,
    /// Share of the successful requests that is logged; the others are always logged.
    #[serde(with = "Share")]
    pub sample: f64,
    /// Form of linked accounts in the log and on the status page.
    pub linked_accounts: AccountNaming,
}

/// The requests that are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LoggedRequests {
    /// Every request, as far as `sample` goes.
    All,
    /// Requests that were refused or failed.
    Errors,
    /// None.
    None,
}

/// The form of linked accounts in the log and on the status page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccountNaming {
    /// The id.
    Plain,
    /// The first 16 hexadecimal digits of the id's SHA-256.
    Hashed,
    /// Left out.
    None,
}

impl AccountNaming {
    /// The name to show for a linked account; `None` if it is left out.
    #[must_use]
    pub fn name(self, account: &str) -> Option<Cow<'_, str>> {
        match self {
            Self::Plain => Some(account.into()),
            Self::Hashed => Some(Hex(&sha256(account.as_bytes())[..DIGITS / 2]).to_string().into()),
            Self::None => None,
        }
    }

    /// Returns whether text of Refold's may be shown: it can name any linked account, in any spelling.
    #[must_use]
    pub fn shows_text_of_refold(self) -> bool {
        self == Self::Plain
    }

    /// Returns whether an id that Refold chose for a request may be shown: without its linked account.
    #[must_use]
    pub fn shows_request_id(self, id: &str, account: Option<&str>) -> bool {
        let has_account = || account.is_none_or(|own| id.to_lowercase().contains(&own.to_lowercase()));
        self == Self::Plain || !has_account()
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { requests: LoggedRequests::All, sample: 1.0, linked_accounts: AccountNaming::Plain }
    }
}
