//! The current public keys of an issuer. Keys behind a URL are fetched periodically and, after a cooldown, when a token names
//! an unknown key. If a fetch fails, the previous keys stay in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ACCEPT, HeaderValue};
use http::{Request, StatusCode};
use tokio::sync::Mutex;

use crate::clock::{Clock, Moment};
use crate::config::{IssuerKeys, JwksUrl};
use crate::http_client::{Client, ClientSetupError, TransportError, buffered};
use crate::jwks::{KeySet, KeySetError};
use crate::log_events;

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
    url: JwksUrl,
    client: Client,
    /// The end of the last fetch. Locked during a fetch, so that there is one at a time.
    last_fetch: Mutex<Option<Moment>>,
}

/// The reason why a fetch gave no keys.
#[derive(Debug, thiserror::Error)]
enum FetchKeysError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("it answered with status {0}")]
    Status(u16),
    #[error(transparent)]
    Keys(#[from] KeySetError),
}

impl Keyring {
    pub(super) fn new(keys: &IssuerKeys) -> Result<Self, ClientSetupError> {
        let (keys, endpoint) = match keys {
            IssuerKeys::Fixed(keys) => (Arc::clone(keys), None),
            IssuerKeys::Url(url) => (Arc::new(KeySet::empty()), Some(JwksEndpoint::new(url)?)),
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

    /// The time between two periodic fetches; `None` for configured keys.
    pub(super) fn refresh_interval(&self) -> Option<Duration> {
        self.endpoint.as_ref().map(|endpoint| endpoint.url.refresh)
    }

    /// Fetches the keys, unless the last fetch ended within the cooldown or a concurrent call has fetched them. The fetch
    /// continues if the caller stops waiting for it.
    pub(super) async fn refresh(self: &Arc<Self>, clock: &Clock) {
        let (keyring, clock) = (Arc::clone(self), clock.clone());
        // If the task panics, the previous keys stay in use.
        let _ = tokio::spawn(async move { keyring.fetch(&clock).await }).await;
    }

    async fn fetch(&self, clock: &Clock) {
        let Some(endpoint) = &self.endpoint else { return };
        let mut last_fetch = endpoint.last_fetch.lock().await;
        if last_fetch.is_some_and(|end| clock.now().since(end) < endpoint.url.cooldown) {
            return;
        }
        match endpoint.fetch().await {
            Ok(keys) => {
                if !keys.includes(&self.keys.load()) {
                    self.generation.fetch_add(1, Ordering::AcqRel);
                }
                self.keys.store(Arc::new(keys));
            }
            Err(reason) => {
                let url = &endpoint.url.connection.base_url;
                tracing::warn!(%url, %reason, message = log_events::JWKS_REFRESH_FAILED);
            }
        }
        *last_fetch = Some(clock.now());
    }
}

impl JwksEndpoint {
    fn new(url: &JwksUrl) -> Result<Self, ClientSetupError> {
        Ok(Self { url: url.clone(), client: Client::new(&url.connection)?, last_fetch: Mutex::default() })
    }

    async fn fetch(&self) -> Result<KeySet, FetchKeysError> {
        let mut request = Request::new(buffered(Bytes::new()));
        *request.uri_mut() = self.url.target.clone().into();
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        let response = self.client.send(request, Duration::MAX).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchKeysError::Status(response.status().as_u16()));
        }
        Ok(KeySet::parse(response.body())?)
    }
}
