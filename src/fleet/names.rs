//! Names of keys, and of what is in them.
//!
//! All keys of a fleet have one hash tag, its name: `pst:b1:{postern}:m`. Orgs, partitions, accounts and questions appear only
//! as HMAC-SHA-256 under a key that is derived from `[fleet] secret`, so read access to Redis tells nothing about them.

use std::fmt;

use aws_lc_rs::hmac::{self, HMAC_SHA256};

use crate::config::FleetConfig;
use crate::digest::Hex;

/// The version of the format of budgets, members and log. A new one doubles the budgets while replicas of both run.
const BUDGET_FORMAT: &str = "b1";
/// The purpose for which the key for names is derived.
const PURPOSE: &[u8] = b"postern fleet names 1";
/// Bytes of a digest that a name has.
const LENGTH: usize = 16;

/// Names the keys of a fleet.
pub struct Names {
    /// The beginning of all keys.
    prefix: String,
    key: hmac::Key,
}

impl Names {
    /// The names of this configuration's fleet.
    #[must_use]
    pub fn new(config: &FleetConfig) -> Self {
        let secret = hmac::Key::new(HMAC_SHA256, config.secret.expose().as_bytes());
        let key = hmac::Key::new(HMAC_SHA256, hmac::sign(&secret, PURPOSE).as_ref());
        Self { prefix: format!("pst:{BUDGET_FORMAT}:{{{}}}:", config.name), key }
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
