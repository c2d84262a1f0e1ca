//! The current public keys of an issuer. Keys behind a URL are fetched periodically and, after a cooldown, when a token names
//! an unknown key. If a fetch fails, the previous keys stay in use, and it is tried again after seconds.
//!
//! Anybody can send a token that names an unknown key. So one fetch is in flight at a time, the requests that wait for it share
//! its result, and both their number and the time that each waits are bounded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ACCEPT, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, StatusCode};
use tokio::sync::{Semaphore, watch};

use crate::clock::{Clock, Moment};
use crate::config::{IssuerKeys, KeyOrigin, RemoteJwks};
use crate::http_client::{Client, ClientSetupError, TransportError, buffered};
use crate::jwks::{KeySet, KeySetError};
use crate::log_events;

/// Pause after a first failed fetch; it doubles with each further failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest pause after a failed fetch.
const LAST_RETRY: Duration = Duration::from_secs(8);
/// Longest time for which a request waits for a fetch.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// Most requests that wait for an issuer's keys at once.
const MAX_WAITING: usize = 256;

/// The current keys of one issuer, and the endpoint that they are fetched from.
#[derive(Debug)]
pub(super) struct Keyring {
    keys: ArcSwap<KeySet>,
    /// Number of changes that removed a key.
    generation: AtomicU64,
    endpoint: Option<JwksEndpoint>,
}

#[derive(Debug)]
struct JwksEndpoint {
    remote: Box<RemoteJwks>,
    client: Client,
    history: Mutex<FetchHistory>,
    /// Notified at the end of each fetch.
    fetched: watch::Sender<()>,
    /// One permit per request that may wait for a fetch.
    waiting: Semaphore,
}

/// The fetches of a document so far.
#[derive(Debug, Default)]
struct FetchHistory {
    /// True during a fetch, so that there is one at a time.
    is_fetching: bool,
    /// The end of the last fetch.
    last_end: Option<Moment>,
    /// Number of failures since the last success.
    failures: u32,
    /// The reason of the last failure, which is logged once.
    reason: String,
}

/// The state of an issuer's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// There are keys; the last fetch of newer ones may have failed.
    Available,
    /// No keys could be read yet, so none of the issuer's tokens can be verified.
    NeverRead,
}

/// The reason why a token with an unknown key can't be refused yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeysUnavailable {
    #[error("the issuer's keys could not be read yet")]
    NeverRead,
    #[error("the fetch of the issuer's keys takes too long")]
    TooSlow,
    #[error("too many requests wait for the issuer's keys")]
    TooManyWait,
}

/// The reason why a fetch gave no keys.
#[derive(Debug, thiserror::Error)]
pub enum FetchKeysError {
    /// There is no complete response.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The response has another status than 200.
    #[error("it answered with status {0}")]
    Status(u16),
    /// The response has no usable keys.
    #[error(transparent)]
    Keys(#[from] KeySetError),
}

impl Keyring {
    pub(super) fn new(keys: &IssuerKeys) -> Result<Self, ClientSetupError> {
        let (keys, endpoint) = match keys.origin() {
            KeyOrigin::Fixed(keys) => (keys, None),
            KeyOrigin::Remote(remote) => (Arc::new(KeySet::empty()), Some(JwksEndpoint::new(remote)?)),
        };
        Ok(Self { keys: ArcSwap::new(keys), generation: AtomicU64::new(0), endpoint })
    }

    pub(super) fn keys(&self) -> arc_swap::Guard<Arc<KeySet>> {
        self.keys.load()
    }

    /// The generation of the keys. A token that was verified in an earlier one has to be verified again, since its key may
    /// have been removed.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns whether [`Keyring::refresh`] can find new keys.
    pub(super) fn can_refresh(&self) -> bool {
        self.endpoint.is_some()
    }

    /// Returns whether there are keys. A document without a usable key is never accepted.
    pub(super) fn state(&self) -> KeyState {
        if self.keys.load().is_empty() { KeyState::NeverRead } else { KeyState::Available }
    }

    /// The time between two periodic fetches; `None` for configured keys.
    pub(super) fn refresh_interval(&self) -> Option<Duration> {
        self.endpoint.as_ref().map(|endpoint| endpoint.remote.refresh)
    }

    /// The pause before the next fetch, if the last one failed.
    pub(super) fn retry_pause(&self) -> Option<Duration> {
        self.endpoint.as_ref()?.history().retry_pause()
    }

    /// The time until a token can make the gateway fetch the keys again.
    pub(super) fn until_next_fetch(&self, now: Moment) -> Duration {
        self.endpoint.as_ref().and_then(JwksEndpoint::next_fetch).map_or(Duration::ZERO, |next| next.since(now))
    }

    /// Fetches the keys like [`Keyring::refresh`] for a token that names an unknown key.
    ///
    /// # Errors
    /// If there are no keys afterwards, or no result within the bounds of such requests.
    pub(super) async fn refresh_for_token(self: &Arc<Self>, clock: &Clock) -> Result<(), KeysUnavailable> {
        if let Some(endpoint) = &self.endpoint {
            let _waiting = endpoint.waiting.try_acquire().map_err(|_| KeysUnavailable::TooManyWait)?;
            tokio::select! {
                biased;
                () = self.refresh(clock) => {}
                () = clock.sleep_until(clock.now() + LONGEST_WAIT) => return Err(KeysUnavailable::TooSlow),
            }
        }
        match self.state() {
            KeyState::Available => Ok(()),
            KeyState::NeverRead => Err(KeysUnavailable::NeverRead),
        }
    }

    /// Fetches the keys, or waits for the fetch in flight, unless the last fetch ended within the cooldown. The fetch
    /// continues if the caller stops waiting for it.
    pub(super) async fn refresh(self: &Arc<Self>, clock: &Clock) {
        let Some(endpoint) = &self.endpoint else { return };
        let mut fetched = {
            let mut history = endpoint.history();
            if !history.is_fetching {
                if endpoint.next_fetch_after(&history).is_some_and(|next| clock.now() < next) {
                    return;
                }
                history.is_fetching = true;
                let (keyring, clock) = (Arc::clone(self), clock.clone());
                tokio::spawn(async move { keyring.fetch(&clock).await });
            }
            // Subscribed under the lock, so that the end of the fetch is not missed.
            endpoint.fetched.subscribe()
        };
        // Never an error, since `self` holds the sender.
        let _ = fetched.changed().await;
    }

    async fn fetch(&self, clock: &Clock) {
        let Some(endpoint) = &self.endpoint else { return };
        let _in_flight = FetchInFlight(endpoint);
        let fetched = endpoint.fetch().await;
        let mut history = endpoint.history();
        history.last_end = Some(clock.now());
        match fetched {
            Ok(keys) => {
                (history.failures, history.reason) = (0, String::new());
                if !keys.includes(&self.keys.load()) {
                    self.generation.fetch_add(1, Ordering::AcqRel);
                }
                self.keys.store(Arc::new(keys));
            }
            Err(reason) => {
                history.failures += 1;
                let reason = reason.to_string();
                // It is tried again every few seconds: one line for each reason is enough.
                if history.reason != reason {
                    let url = &endpoint.remote.connection.base_url;
                    tracing::warn!(%url, reason, message = log_events::JWKS_REFRESH_FAILED);
                    history.reason = reason;
                }
            }
        }
    }
}

/// A fetch. When it is dropped, also by a panic, it has ended: the previous keys stay in use if it brought no others.
struct FetchInFlight<'a>(&'a JwksEndpoint);

impl Drop for FetchInFlight<'_> {
    fn drop(&mut self) {
        self.0.history().is_fetching = false;
        self.0.fetched.send_replace(());
    }
}

impl FetchHistory {
    /// The pause after the last fetch, if it failed.
    fn retry_pause(&self) -> Option<Duration> {
        let doublings = self.failures.checked_sub(1)?;
        Some(FIRST_RETRY.saturating_mul(1 << doublings.min(8)).min(LAST_RETRY))
    }
}

impl JwksEndpoint {
    fn new(remote: Box<RemoteJwks>) -> Result<Self, ClientSetupError> {
        Ok(Self {
            client: Client::new(&remote.connection)?,
            remote,
            history: Mutex::default(),
            fetched: watch::Sender::new(()),
            waiting: Semaphore::new(MAX_WAITING),
        })
    }

    fn history(&self) -> MutexGuard<'_, FetchHistory> {
        // Each field is valid by itself, so a panic leaves a valid value.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_fetch(&self) -> Option<Moment> {
        self.next_fetch_after(&self.history())
    }

    /// The earliest moment of the next fetch; `None` before the first.
    fn next_fetch_after(&self, history: &FetchHistory) -> Option<Moment> {
        let cooldown = self.remote.cooldown;
        let pause = history.retry_pause().map_or(cooldown, |pause| pause.min(cooldown));
        Some(history.last_end? + pause)
    }

    async fn fetch(&self) -> Result<KeySet, FetchKeysError> {
        fetch_keys(&self.client, &self.remote.target).await
    }
}

/// Fetches and parses a JWKS document.
///
/// # Errors
/// If there is no complete response, or no usable key in it.
pub async fn fetch_keys(client: &Client, target: &PathAndQuery) -> Result<KeySet, FetchKeysError> {
    let mut request = Request::new(buffered(Bytes::new()));
    *request.uri_mut() = target.clone().into();
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    let response = client.send(request, Duration::MAX).await?;
    if response.status() != StatusCode::OK {
        return Err(FetchKeysError::Status(response.status().as_u16()));
    }
    Ok(KeySet::parse(response.body())?)
}
