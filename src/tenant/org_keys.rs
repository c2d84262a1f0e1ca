//! The org API keys of a tenant, the current one and, during a rotation, the next one, each with its budget at Refold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use aws_lc_rs::constant_time;
use http::HeaderValue;

use super::key_checks::{KeyVerdict, LastVerdict};
use super::key_forms::KeyForms;
use super::signature_check::SignatureCheck;
use crate::clock::Clock;
use crate::config::{self, Secret, UpstreamLimits};
use crate::limit::UpstreamBudget;

/// Selects one of a tenant's org keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OrgKey {
    /// The setting `org_key`.
    Current,
    /// The setting `org_key_next`.
    Next,
}

impl OrgKey {
    /// The value of the metrics' label `key`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Next => "next",
        }
    }
}

/// The org keys, and which of them Refold accepted last.
#[derive(Debug)]
pub struct OrgKeys {
    current: OrgKeyValue,
    next: Option<OrgKeyValue>,
    active: AtomicU8,
}

#[derive(Debug)]
pub(super) struct OrgKeyValue {
    pub(super) secret: Secret,
    header: HeaderValue,
    forms: KeyForms,
    pub(super) budget: KeyBudget,
    pub(super) verdict: Arc<LastVerdict>,
}

/// The budget of one org key.
#[derive(Clone, Debug)]
pub(super) struct KeyBudget {
    pub(super) budget: UpstreamBudget,
    /// The limits that apply when the tenant begins to serve: of each setting the lowest of all tenants that have the key.
    pub(super) limits: UpstreamLimits,
}

impl KeyBudget {
    /// Creates a full budget.
    pub(super) fn new(limits: UpstreamLimits, clock: &Clock) -> Self {
        Self { budget: UpstreamBudget::new(limits, clock.clone()), limits }
    }
}

impl OrgKeys {
    /// Creates the keys with full budgets of their own.
    pub(super) fn new(config: &config::TenantConfig, clock: &Clock) -> Self {
        let key = |secret| OrgKeyValue::new(secret, config.limits.upstream, clock);
        Self {
            current: key(&config.org_key),
            next: config.org_key_next.as_ref().map(key),
            active: AtomicU8::new(OrgKey::Current as u8),
        }
    }

    /// Creates the keys of another configuration. The active key stays active if it is still configured.
    pub(super) fn reconfigured(&self, config: &config::TenantConfig, clock: &Clock) -> Self {
        let mut keys = Self::new(config, clock);
        for key in keys.all_mut() {
            if let Some(same) = self.all().find(|same| same.secret == key.secret) {
                key.verdict = Arc::clone(&same.verdict);
            }
        }
        let active = match (self.active(), &self.next) {
            (OrgKey::Next, Some(next)) => &next.secret,
            _ => &self.current.secret,
        };
        if let Some(active) = keys.find(active.expose().as_bytes()) {
            keys.promote(active);
        }
        keys
    }

    /// The key that Refold accepted last, which requests send first.
    #[must_use]
    pub fn active(&self) -> OrgKey {
        if self.active.load(Ordering::Relaxed) == OrgKey::Next as u8 { OrgKey::Next } else { OrgKey::Current }
    }

    /// The key to try after Refold has refused `refused`; `None` outside a rotation.
    #[must_use]
    pub fn fallback(&self, refused: OrgKey) -> Option<OrgKey> {
        self.next.as_ref().map(|_| match refused {
            OrgKey::Current => OrgKey::Next,
            OrgKey::Next => OrgKey::Current,
        })
    }

    /// Makes a key the active one, after Refold has accepted it and refused the other.
    pub fn promote(&self, key: OrgKey) {
        self.active.store(key as u8, Ordering::Relaxed);
    }

    /// The value of the upstream request's header for a key; marked as sensitive.
    #[must_use]
    pub fn header(&self, key: OrgKey) -> &HeaderValue {
        &self.key(key).header
    }

    /// Returns whether a key is configured.
    pub(super) fn has(&self, key: OrgKey) -> bool {
        key == OrgKey::Current || self.next.is_some()
    }

    /// Refold's last verdict on a key.
    pub(super) fn verdict(&self, key: OrgKey) -> &LastVerdict {
        &self.key(key).verdict
    }

    /// The budget of a key at the upstream.
    #[must_use]
    pub fn budget(&self, key: OrgKey) -> &UpstreamBudget {
        &self.key(key).budget.budget
    }

    /// The limits of the active key.
    pub(super) fn limits(&self) -> UpstreamLimits {
        self.key(self.active()).budget.limits
    }

    /// Finds the key that equals a text, in constant time for texts of the key's length.
    #[must_use]
    pub fn find(&self, text: &[u8]) -> Option<OrgKey> {
        let is =
            |key: &OrgKeyValue| constant_time::verify_slices_are_equal(text, key.secret.expose().as_bytes()).is_ok();
        let current = is(&self.current).then_some(OrgKey::Current);
        current.or_else(|| self.next.as_ref().is_some_and(is).then_some(OrgKey::Next))
    }

    /// Begins to check the signature of a text with one of the keys.
    #[must_use]
    pub fn signature_check(&self) -> SignatureCheck {
        SignatureCheck::new(self.all().map(|key| key.secret.expose().as_bytes()))
    }

    /// The length of the longest key, in bytes.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.all().map(|key| key.secret.expose().len()).max().unwrap_or(0)
    }

    /// Returns whether a text contains one of the keys.
    #[must_use]
    pub fn appear_in(&self, text: &[u8]) -> bool {
        self.all().any(|key| key.forms.plain_appears_in(text))
    }

    /// Returns whether a header's value contains one of the keys, as it is or in an encoded form.
    #[must_use]
    pub fn appear_in_header(&self, value: &HeaderValue) -> bool {
        self.all().any(|key| key.forms.appear_in(value.as_bytes()))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &OrgKeyValue> {
        std::iter::once(&self.current).chain(&self.next)
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut OrgKeyValue> {
        std::iter::once(&mut self.current).chain(&mut self.next)
    }

    fn key(&self, key: OrgKey) -> &OrgKeyValue {
        match (key, &self.next) {
            (OrgKey::Next, Some(next)) => next,
            _ => &self.current,
        }
    }
}

impl OrgKeyValue {
    fn new(secret: &Secret, limits: UpstreamLimits, clock: &Clock) -> Self {
        let mut header = HeaderValue::from_str(secret.expose()).expect("the configuration accepts only visible ASCII");
        header.set_sensitive(true);
        Self {
            secret: secret.clone(),
            header,
            forms: KeyForms::new(secret.expose().as_bytes()),
            budget: KeyBudget::new(limits, clock),
            verdict: Arc::new(LastVerdict::new(KeyVerdict::Unasked)),
        }
    }
}
