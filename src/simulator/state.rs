//! The state that all clones and connections of one simulated Refold share.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;

use super::arrivals::Arrivals;
use super::disruption::Connections;
use super::fault::Fault;
use super::habit::{Habit, Habits};
use super::history::{History, SimulatedExecution, mix};
use super::lock::lock;
use super::rate_limiter::RateLimiter;
use super::subscriptions::WebhookSubscriptions;
use crate::clock::Clock;
use crate::digest::{Hex, decode_hex_to_vec, sha256};

/// Settings of a simulated Refold.
#[derive(Clone, Debug)]
pub struct SimulatorSettings {
    /// Seed of the executions; equal seeds give equal executions.
    pub seed: u64,
    /// Accepted values of `x-api-key`.
    pub org_keys: Vec<String>,
    /// Requests per second and burst for each org key; `None` for no limit.
    pub rate: Option<(u32, u32)>,
}

impl Default for SimulatorSettings {
    fn default() -> Self {
        Self { seed: 1, org_keys: vec!["tk_simulated_org_key".to_owned()], rate: Some((20, 5)) }
    }
}

#[derive(Debug)]
pub(super) struct SimulatorState {
    pub(super) settings: SimulatorSettings,
    pub(super) clock: Clock,
    pub(super) history: History,
    pub(super) rate_limiter: Option<RateLimiter>,
    /// Requests for executions, refused ones included.
    pub(super) requests: AtomicU64,
    /// Requests that were refused because of the rate limit.
    pub(super) rate_limited: AtomicU64,
    pub(super) arrivals: Arrivals,
    pub(super) subscriptions: WebhookSubscriptions,
    /// Linked accounts that appeared in an accepted request; only their changes are delivered to webhooks.
    queried_accounts: Mutex<HashSet<String>>,
    pub(super) connections: Connections,
    fault: Mutex<Option<Fault>>,
    habits: Mutex<Habits>,
    revoked_tokens: Mutex<HashSet<String>>,
}

impl SimulatorState {
    pub(super) fn new(settings: SimulatorSettings, clock: Clock) -> Self {
        Self {
            history: History::new(settings.seed, clock.wall().as_millisecond()),
            rate_limiter: settings.rate.map(|(per_second, burst)| RateLimiter::new(per_second, burst)),
            settings,
            clock,
            requests: AtomicU64::new(0),
            rate_limited: AtomicU64::new(0),
            arrivals: Arrivals::default(),
            subscriptions: WebhookSubscriptions::default(),
            queried_accounts: Mutex::default(),
            connections: Connections::default(),
            fault: Mutex::default(),
            habits: Mutex::default(),
            revoked_tokens: Mutex::default(),
        }
    }

    /// The present time in milliseconds since 1970.
    pub(super) fn now(&self) -> i64 {
        self.clock.wall().as_millisecond()
    }

    pub(super) fn accepts_org_key(&self, key: &str) -> bool {
        self.settings.org_keys.iter().any(|accepted| accepted == key)
    }

    pub(super) fn fault(&self) -> Option<Fault> {
        lock(&self.fault).clone()
    }

    pub(super) fn set_fault(&self, fault: Option<Fault>) {
        *lock(&self.fault) = fault;
    }

    pub(super) fn set_habit(&self, habit: Habit) {
        lock(&self.habits).set(habit);
    }

    /// Ends the present fault and all habits.
    pub(super) fn behave(&self) {
        self.set_fault(None);
        *lock(&self.habits) = Habits::default();
    }

    /// Returns the status for an execution id that is not valid, if it is another one than 404.
    pub(super) fn status_of_id(&self, id: &str) -> Option<StatusCode> {
        lock(&self.habits).status_of_id(id)
    }

    /// Returns the status for an unknown session token, if it is another one than 401.
    pub(super) fn status_of_unknown_token(&self) -> Option<StatusCode> {
        let number = self.requests.load(Ordering::SeqCst);
        lock(&self.habits).status_of_unknown_token(mix(!self.settings.seed, number))
    }

    pub(super) fn session_token(&self, linked_account: &str) -> String {
        let tag = sha256(format!("{}/{linked_account}", self.settings.seed).as_bytes());
        format!("sim.{}.{}", Hex(linked_account.as_bytes()), Hex(&tag[..16]))
    }

    /// Makes the simulator refuse a session token from now on.
    pub(super) fn revoke_session_token(&self, token: &str) {
        lock(&self.revoked_tokens).insert(token.to_owned());
    }

    /// Returns the linked account of a valid session token.
    pub(super) fn account_of_session_token(&self, token: &str) -> Option<String> {
        let id = token.strip_prefix("sim.")?.split('.').next()?;
        let account = String::from_utf8(decode_hex_to_vec(id.as_bytes())?).ok()?;
        (self.session_token(&account) == token && !lock(&self.revoked_tokens).contains(token)).then_some(account)
    }

    /// Adds a linked account to those whose changes are delivered to webhooks.
    pub(super) fn watch_account(&self, linked_account: &str) {
        lock(&self.queried_accounts).insert(linked_account.to_owned());
    }

    /// Returns the executions of queried linked accounts whose status changed after `from` and until `now`.
    pub(super) fn changes(&self, from: i64, now: i64) -> Vec<(String, SimulatedExecution)> {
        let accounts: Vec<String> = lock(&self.queried_accounts).iter().cloned().collect();
        let changes_of = |id: String| {
            let changed = self.history.account(&id).changes(from, now);
            changed.into_iter().map(move |execution| (id.clone(), execution))
        };
        accounts.into_iter().flat_map(changes_of).collect()
    }

    /// Returns a request id, which depends only on the seed and the number of requests so far.
    pub(super) fn request_id(&self) -> String {
        let number = self.requests.load(Ordering::SeqCst);
        let high = mix(self.settings.seed, number);
        let id = (u128::from(high) << 64) | u128::from(mix(high, number));
        uuid::Builder::from_random_bytes(id.to_be_bytes()).into_uuid().to_string()
    }
}
