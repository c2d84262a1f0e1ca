//! Checks of the org keys: Postern asks Refold for a page of linked accounts, which needs nothing but the key.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::{HeaderValue, StatusCode};

use super::{Upstream, request};
use crate::clock::Moment;
use crate::http_client::{BufferedResponse, Client, TransportError};
use crate::limit::{Flow, Urgency};
use crate::log_events;
use crate::observe::{KeyCheckResult, Observer};
use crate::tenant::{KeyVerdict, OrgKey, Tenant};

/// Time between two looks for keys that are to be checked.
const INTERVAL: Duration = Duration::from_secs(1);
/// The flow of checks in the queue for the budget, which belongs to no caller.
const FLOW: Flow = Flow { credential: 0, account: 0 };

impl Upstream {
    /// Checks the tenants' org keys whenever a check is due, for as long as it is polled; ends at once if keys are never checked.
    pub async fn keep_keys_verified(&self, client: &Client, tenants: &[Arc<Tenant>], observer: &Observer) {
        if self.config.upstream.verify_key == crate::config::VerifyKey::Off {
            return;
        }
        loop {
            let now = self.clock.now();
            join_all(tenants.iter().map(|tenant| self.verify_keys(client, tenant, (observer, now)))).await;
            self.clock.sleep_until(self.clock.now() + INTERVAL).await;
        }
    }

    async fn verify_keys(&self, client: &Client, tenant: &Tenant, (observer, now): (&Observer, Moment)) {
        for key in tenant.keys_to_check(self.config.upstream.verify_key, now) {
            let result = self.verify_key(client, tenant, key).await;
            if let Some(result) = result {
                observer.key_checked(tenant, key, result);
            }
            let verdict = match result {
                Some(KeyCheckResult::Refused) => KeyVerdict::Refused,
                // Without a clear answer the key counts as good: callers find out.
                Some(KeyCheckResult::Accepted | KeyCheckResult::Unclear) | None => KeyVerdict::NotRefused,
            };
            let was_accepted = tenant.credential_accepted();
            tenant.record_key_verdict(key, verdict);
            if was_accepted && !tenant.credential_accepted() {
                observer.event(log_events::UPSTREAM_REJECTED_ORG_KEY, Some(&tenant.config.id), String::new());
            }
        }
    }

    /// Asks Refold whether it accepts a key; `None` if the budget does not grant the request.
    async fn verify_key(&self, client: &Client, tenant: &Tenant, key: OrgKey) -> Option<KeyCheckResult> {
        let budget = tenant.org_keys().budget(key);
        let granted = budget.acquire(FLOW, Urgency::Foreground, self.clock.now()).await;
        let header: HeaderValue = tenant.org_keys().header(key).clone();
        let Ok(slot) = granted else { return None };
        slot.spend();
        Some(match ask_about_key(client, header, self.total_timeout()).await {
            Ok(response) if response.status() == StatusCode::UNAUTHORIZED => KeyCheckResult::Refused,
            Ok(response) if response.status().is_success() => KeyCheckResult::Accepted,
            _ => KeyCheckResult::Unclear,
        })
    }
}

/// Asks Refold about an org key: 401 refuses it, and a page of linked accounts accepts it.
///
/// # Errors
/// If there is no complete response within `time_left` and the timeouts of the client.
///
/// # Panics
/// Never: the target of the request is short.
pub async fn ask_about_key(
    client: &Client,
    key: HeaderValue,
    time_left: Duration,
) -> Result<BufferedResponse, TransportError> {
    let request = request::key_check(key).expect("the target is short");
    client.send(request, time_left).await
}
