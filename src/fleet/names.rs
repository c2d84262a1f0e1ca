//! Names of keys, and of what is in them.
//!
//! All keys of a fleet have one hash tag, its name: `pst:b1:{postern}:m`. Orgs, partitions, accounts and questions appear only
//! as HMAC-SHA-256 under a key that is derived from the secret with which the fleet began, so read access to Redis tells nothing about
//! them. A rotation of the secret changes no name.

use std::fmt;

use aws_lc_rs::hmac::{self, HMAC_SHA256};

use crate::config::FleetConfig;
use crate::digest::Hex;

/// The version of the format of budgets, members and log. A new one doubles the budgets while replicas of both run.
const BUDGET_FORMAT: &str = "b1";
/// The version of the format of entries. Replicas of different ones find no entries of each other, and share the budgets.
const ENTRY_FORMAT: &str = "e1";
/// The purpose for which the key for names is derived.
const PURPOSE: &[u8] = b"postern fleet names 1";
/// Bytes of a digest that a name has.
const LENGTH: usize = 16;

/// Names the keys of a fleet.
pub struct Names {
    /// The beginning of all keys.
    prefix: String,
    /// The beginning of the keys of entries.
    entry_prefix: String,
    key: hmac::Key,
}

impl Names {
    /// The names of this configuration's fleet.
    #[must_use]
    pub fn new(config: &FleetConfig) -> Self {
        let secret = hmac::Key::new(HMAC_SHA256, config.names_secret().expose().as_bytes());
        let key = hmac::Key::new(HMAC_SHA256, hmac::sign(&secret, PURPOSE).as_ref());
        let prefix = |format| format!("pst:{format}:{{{}}}:", config.name);
        Self { prefix: prefix(BUDGET_FORMAT), entry_prefix: prefix(ENTRY_FORMAT), key }
    }

    /// The id of the key from which names derive: replicas with another one use other names.
    #[must_use]
    pub(super) fn id(&self) -> String {
        self.hidden("id of the key", &[])
    }

    /// The key of something of which a fleet has one: `pst:b1:{postern}:m`.
    #[must_use]
    pub fn single(&self, kind: &str) -> String {
        format!("{}{kind}", self.prefix)
    }

    /// The key of something of which there is one per subject, named by [`Names::hidden`]: `pst:b1:{postern}:up:9f86…`.
    #[must_use]
    pub fn of(&self, kind: &str, hidden: &str) -> String {
        format!("{}{kind}:{hidden}", self.prefix)
    }

    /// The key of an entry: `pst:e1:{postern}:e:9f86…:4e07…`.
    #[must_use]
    pub(super) fn entry(&self, hidden: &str) -> String {
        format!("{}e:{hidden}", self.entry_prefix)
    }

    /// A name that only holders of the secret can derive: 32 hexadecimal digits. `domain` says what is named, so that subjects of
    /// different kinds never have the same name; `parts` identify the subject in this order.
    #[must_use]
    pub fn hidden(&self, domain: &str, parts: &[&[u8]]) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        for part in std::iter::once(&domain.as_bytes()).chain(parts) {
            // With its length, so that no two lists of parts are the same text.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        Hex(&context.sign().as_ref()[..LENGTH]).to_string()
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Names").field(&self.prefix).finish()
    }
}
