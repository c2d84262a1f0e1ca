//! Verification of a tenant's org keys: when Refold is asked whether it accepts them, and what a refusal means.
//!
//! A 401 to a request says nothing about the key by itself: the linked account may be unknown. So Refold is asked with a request
//! that names no account: for each new key, and after a 401, at most once in ten seconds.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::key_checks::KeyVerdict;
use super::{OrgKey, Tenant};
use crate::clock::Moment;
use crate::config::VerifyKey;
use crate::log_events;

/// Shortest time between two checks of a tenant's keys.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

impl Tenant {
    /// Returns the keys that Refold is to be asked about now.
    #[must_use]
    pub fn keys_to_check(&self, setting: VerifyKey, now: Moment) -> Vec<OrgKey> {
        let checks = &self.key_checks;
        let keys = || [OrgKey::Current, OrgKey::Next].into_iter().filter(|key| self.org_keys.has(*key));
        let unasked = || keys().filter(|key| self.org_keys.verdict(*key).get() == KeyVerdict::Unasked);
        let last = Moment::from_nanos(checks.last.load(Ordering::Relaxed));
        if setting == VerifyKey::Off {
            return Vec::new();
        }
        if last != Moment::default() && now.since(last) < CHECK_INTERVAL {
            return Vec::new();
        }
        // A tenant that is not ready gets no requests, so nothing else would find out that its key is accepted.
        let waits = setting == VerifyKey::Require && !checks.was_ready.load(Ordering::Relaxed);
        let due: Vec<OrgKey> = if checks.is_wanted.swap(false, Ordering::Relaxed) || waits {
            keys().collect()
        } else {
            unasked().collect()
        };
        if !due.is_empty() {
            checks.last.store(now.as_nanos().max(1), Ordering::Relaxed);
        }
        due
    }

    /// Has the keys checked soon, after a 401 to a request with one of them.
    pub fn want_key_check(&self) {
        self.key_checks.is_wanted.store(true, Ordering::Relaxed);
    }

    /// Records Refold's answer to a check, or the success of a request with the key.
    pub fn record_key_verdict(&self, key: OrgKey, verdict: KeyVerdict) {
        let was_accepted = self.credential_accepted();
        self.org_keys.verdict(key).set(verdict);
        if verdict == KeyVerdict::NotRefused && !self.key_checks.was_ready.load(Ordering::Relaxed) {
            self.key_checks.was_ready.store(true, Ordering::Relaxed);
        }
        if was_accepted && !self.credential_accepted() {
            tracing::error!(tenant = %self.config.id, message = log_events::UPSTREAM_REJECTED_ORG_KEY);
        }
    }

    /// Returns whether Refold accepts one of the org keys, as far as is known.
    #[must_use]
    pub fn credential_accepted(&self) -> bool {
        self.org_keys.all().any(|key| key.verdict.get() != KeyVerdict::Refused)
    }

    /// Returns whether the tenant counts as ready. Only a key that has to be accepted at start makes it not so.
    #[must_use]
    pub fn is_ready(&self, setting: VerifyKey) -> bool {
        match setting {
            VerifyKey::Off | VerifyKey::Warn => true,
            VerifyKey::Require => self.key_checks.was_ready.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Clock;

    fn tenant(more: &str, clock: &Clock) -> Tenant {
        let mut environment = crate::config::Environment::default();
        environment.insert("ORG_KEY", "tk_org");
        environment.insert("NEXT", "tk_next");
        let text = format!("[[tenants]]\nid = \"t\"\nmode = \"validate\"\norg_key = {{ env = \"ORG_KEY\" }}\n{more}");
        let config = crate::config::Config::parse(&text, std::path::Path::new("test.toml"), &environment);
        Tenant::new(Arc::clone(&config.expect("a valid configuration").tenants[0]), clock.clone())
    }

    #[test]
    fn a_key_is_checked_once_and_after_a_401_at_most_every_ten_seconds() {
        let clock = Clock::manual(jiff::Timestamp::UNIX_EPOCH);
        let tenant = tenant("", &clock);
        let due = || tenant.keys_to_check(VerifyKey::Warn, clock.now()).len();
        assert_eq!(due(), 1);
        tenant.record_key_verdict(OrgKey::Current, KeyVerdict::Refused);
        clock.advance(Duration::from_mins(1));
        assert_eq!(due(), 0, "nothing new is known");
        tenant.want_key_check();
        assert_eq!(due(), 1);
        for _ in 0..9 {
            tenant.want_key_check();
            clock.advance(Duration::from_secs(1));
            assert_eq!(due(), 0);
        }
        clock.advance(Duration::from_secs(1));
        assert_eq!((due(), due()), (1, 0));
    }

    #[test]
    fn both_keys_are_checked_and_both_have_to_be_refused() {
        let clock = Clock::manual(jiff::Timestamp::UNIX_EPOCH);
        clock.advance(Duration::from_secs(1));
        let tenant = tenant("org_key_next = { env = \"NEXT\" }\n", &clock);
        assert_eq!(tenant.keys_to_check(VerifyKey::Warn, clock.now()), [OrgKey::Current, OrgKey::Next]);
        assert!(tenant.credential_accepted() && !tenant.is_ready(VerifyKey::Require));
        tenant.record_key_verdict(OrgKey::Current, KeyVerdict::Refused);
        assert!(tenant.credential_accepted());
        tenant.record_key_verdict(OrgKey::Next, KeyVerdict::Refused);
        assert!(!tenant.credential_accepted() && tenant.is_ready(VerifyKey::Warn));
        clock.advance(Duration::from_secs(10));
        assert_eq!(tenant.keys_to_check(VerifyKey::Require, clock.now()).len(), 2, "it is not ready yet");
        tenant.record_key_verdict(OrgKey::Next, KeyVerdict::NotRefused);
        assert!(tenant.credential_accepted() && tenant.is_ready(VerifyKey::Require));
        clock.advance(Duration::from_secs(10));
        assert!(tenant.keys_to_check(VerifyKey::Require, clock.now()).is_empty());
        assert!(tenant.keys_to_check(VerifyKey::Off, clock.now()).is_empty());
    }
}
