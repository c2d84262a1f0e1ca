//! The org API keys of a tenant: the current one and, while they are rotated, the next.

use std::sync::atomic::{AtomicU8, Ordering};

use aws_lc_rs::{constant_time, hmac};
use http::HeaderValue;
use memchr::memmem;

use crate::config::{self, Secret};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OrgKey {
    /// `org_key`
    Current,
    /// `org_key_next`
    Next,
}

/// The keys, and which of them Refold took last.
#[derive(Debug)]
pub struct OrgKeys {
    current: Key,
    next: Option<Key>,
    active: AtomicU8,
}

#[derive(Debug)]
struct Key {
    secret: Secret,
    header: HeaderValue,
}

impl OrgKeys {
    pub(super) fn new(config: &config::Tenant) -> Self {
        Self {
            current: Key::new(&config.org_key),
            next: config.org_key_next.as_ref().map(Key::new),
            active: AtomicU8::new(OrgKey::Current as u8),
        }
    }

    /// The keys of another configuration. The one that Refold took last is the first to be shown, if it is still there.
    pub(super) fn reconfigured(before: &Self, config: &config::Tenant) -> Self {
        let keys = Self::new(config);
        let active = match (before.active(), &before.next) {
            (OrgKey::Next, Some(next)) => &next.secret,
            _ => &before.current.secret,
        };
        if let Some(active) = keys.which(active.expose().as_bytes()) {
            keys.promote(active);
        }
        keys
    }

    /// The one that Refold took last.
    #[must_use]
    pub fn active(&self) -> OrgKey {
        if self.active.load(Ordering::Relaxed) == OrgKey::Next as u8 { OrgKey::Next } else { OrgKey::Current }
    }

    /// The one to try when Refold does not take `refused`.
    #[must_use]
    pub fn fallback(&self, refused: OrgKey) -> Option<OrgKey> {
        self.next.as_ref().map(|_| match refused {
            OrgKey::Current => OrgKey::Next,
            OrgKey::Next => OrgKey::Current,
        })
    }

    /// Refold took this one where it did not take the other.
    pub fn promote(&self, key: OrgKey) {
        self.active.store(key as u8, Ordering::Relaxed);
    }

    /// A key as it goes upstream; marked as sensitive.
    #[must_use]
    pub fn header(&self, key: OrgKey) -> &HeaderValue {
        match (key, &self.next) {
            (OrgKey::Next, Some(next)) => &next.header,
            _ => &self.current.header,
        }
    }

    /// Which of the keys this is. Takes the same time for every text of a key's length.
    #[must_use]
    pub fn which(&self, text: &[u8]) -> Option<OrgKey> {
        let is = |key: &Key| constant_time::verify_slices_are_equal(text, key.secret.expose().as_bytes()).is_ok();
        let current = is(&self.current).then_some(OrgKey::Current);
        current.or_else(|| self.next.as_ref().is_some_and(is).then_some(OrgKey::Next))
    }

    /// Whether one of the keys has signed a text: HMAC-SHA256, compared in constant time.
    #[must_use]
    pub fn have_signed(&self, text: &[u8], signature: &[u8]) -> bool {
        std::iter::once(&self.current).chain(&self.next).any(|key| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, key.secret.expose().as_bytes());
            hmac::verify(&key, text, signature).is_ok()
        })
    }

    /// Length of the longest key, in bytes.
    #[must_use]
    pub fn longest(&self) -> usize {
        std::iter::once(&self.current).chain(&self.next).map(|key| key.secret.expose().len()).max().unwrap_or(0)
    }

    /// Whether one of the keys is somewhere in a text.
    #[must_use]
    pub fn appear_in(&self, text: &[u8]) -> bool {
        std::iter::once(&self.current)
            .chain(&self.next)
            .any(|key| memmem::find(text, key.secret.expose().as_bytes()).is_some())
    }
}

impl Key {
    fn new(secret: &Secret) -> Self {
        // The configuration has made sure that it can be a header value.
        let mut header = HeaderValue::from_str(secret.expose()).unwrap_or(HeaderValue::from_static(""));
        header.set_sensitive(true);
        Self { secret: secret.clone(), header }
    }
}
