//! Where an issuer's keys come from. Those behind a URL are fetched anew in the background and, with a pause between two
//! fetches, when a token names a key that is not known; while the URL can't be read the old ones are kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, StatusCode};
use tokio::sync::Mutex;

use crate::client::{Client, ClientSetupError, whole};
use crate::clock::{Clock, Moment};
use crate::config::{IssuerKeys, KeyOrigin, RemoteJwks};
use crate::keyset::KeySet;

/// The keys of one issuer.
#[derive(Debug)]
pub(super) struct KeySource {
    keys: ArcSwap<KeySet>,
    /// Counts the changes that took a key away.
    generation: AtomicU64,
    remote: Option<Remote>,
}

#[derive(Debug)]
struct Remote {
    url: Box<RemoteJwks>,
    client: Client,
    /// Held while a fetch is under way; when the last one ended, and whether it gave keys.
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    ended: Option<Moment>,
}

impl KeySource {
    pub(super) fn new(keys: &IssuerKeys) -> Result<Self, ClientSetupError> {
        let (keys, remote) = match keys.origin() {
            KeyOrigin::Fixed(keys) => (keys, None),
            KeyOrigin::Remote(url) => {
                let remote = Remote { client: Client::new(&url.connection)?, url, last: Mutex::default() };
                (Arc::new(KeySet::empty()), Some(remote))
            }
        };
        Ok(Self { keys: ArcSwap::new(keys), generation: AtomicU64::new(0), remote })
    }

    pub(super) fn keys(&self) -> arc_swap::Guard<Arc<KeySet>> {
        self.keys.load()
    }

    /// A token that was verified under another generation is to be verified again.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether an unknown key could be had.
    pub(super) fn can_refresh(&self) -> bool {
        self.remote.is_some()
    }

    /// How long keys are kept before they are fetched anew in the background.
    pub(super) fn refresh_after(&self) -> Option<std::time::Duration> {
        self.remote.as_ref().map(|remote| remote.url.refresh)
    }

    /// Fetches the keys, unless somebody has since this call began or not long ago. Runs to its end also if the caller
    /// does not wait for it.
    pub(super) async fn refresh(self: &Arc<Self>, clock: &Clock) {
        let (source, clock) = (Arc::clone(self), clock.clone());
        // It ends; were it to panic, the old keys stay.
        let _ = tokio::spawn(async move { source.fetch(&clock).await }).await;
    }

    async fn fetch(&self, clock: &Clock) {
        let Some(remote) = &self.remote else { return };
        let mut last = remote.last.lock().await;
        if last.ended.is_some_and(|ended| clock.now().since(ended) < remote.url.cooldown) {
            return;
        }
        match remote.fetch().await {
            Ok(keys) => {
                if !keys.includes(&self.keys.load()) {
                    self.generation.fetch_add(1, Ordering::AcqRel);
                }
                self.keys.store(Arc::new(keys));
            }
            Err(reason) => tracing::warn!(url = %remote.url.connection.base_url, reason, "jwks_refresh_failed"),
        }
        last.ended = Some(clock.now());
    }
}

impl Remote {
    async fn fetch(&self) -> Result<KeySet, String> {
        let mut request = Request::new(whole(Bytes::new()));
        *request.uri_mut() = self.url.target.clone().into();
        request.headers_mut().insert(http::header::ACCEPT, http::HeaderValue::from_static("application/json"));
        let reply = self.client.send(request, std::time::Duration::MAX).await.map_err(|error| error.to_string())?;
        if reply.status != StatusCode::OK {
            return Err(format!("it answered with status {}", reply.status.as_u16()));
        }
        KeySet::parse(&reply.body).map_err(|error| error.to_string())
    }
}
