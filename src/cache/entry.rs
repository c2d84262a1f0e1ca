//! An answer as it is kept: the body, and every header value that can be made once instead of at each hit.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use xxhash_rust::xxh3::xxh3_128;

use crate::clock::Moment;
use crate::executions::{Document, Progress};

/// An answer that can be given more than once.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The JSON text.
    pub body: Bytes,
    /// Strong entity tag (RFC 9110, 8.8.3): the hash of the body.
    pub etag: HeaderValue,
    /// `private, max-age=…`, or `no-store`.
    pub cache_control: HeaderValue,
    /// When the upstream was asked: what `Age` counts from.
    pub stored_at: Moment,
    /// How long it is fresh.
    pub lifetime: Duration,
    /// Whether what it shows can still change.
    pub progress: Progress,
    /// The upstream's own `ETag`, to ask whether anything changed.
    pub validator: Option<HeaderValue>,
    /// The upstream asked for it not to be kept.
    pub no_store: bool,
}

impl Entry {
    /// An answer that was asked for at `asked_at`.
    #[must_use]
    pub fn new(document: Document, lifetime: Duration, asked_at: Moment) -> Self {
        let mut entry = Self {
            etag: etag(&document.body),
            body: document.body,
            cache_control: HeaderValue::from_static("no-store"),
            stored_at: asked_at,
            lifetime,
            progress: document.progress,
            validator: None,
            no_store: false,
        };
        entry.set_lifetime(lifetime);
        entry
    }

    /// The same answer, found to be still true at `asked_at`.
    #[must_use]
    pub fn renewed(&self, lifetime: Duration, asked_at: Moment) -> Self {
        let mut entry = Self { stored_at: asked_at, ..self.clone() };
        entry.set_lifetime(lifetime);
        entry
    }

    /// Marks it as one that the upstream wants nobody to keep.
    #[must_use]
    pub fn not_stored(mut self) -> Self {
        self.no_store = true;
        self.lifetime = Duration::ZERO;
        self.cache_control = HeaderValue::from_static("no-store");
        self
    }

    fn set_lifetime(&mut self, lifetime: Duration) {
        self.lifetime = lifetime;
        let value = format!("private, max-age={}", lifetime.as_secs());
        // Letters and digits: always a header value.
        self.cache_control = HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("private, max-age=0"));
    }

    /// How long ago the upstream was asked.
    #[must_use]
    pub fn age(&self, now: Moment) -> Duration {
        now.since(self.stored_at)
    }

    /// Whether it may be given without asking the upstream.
    #[must_use]
    pub fn is_fresh(&self, now: Moment) -> bool {
        self.age(now) < self.lifetime
    }

    /// What it takes in memory, in bytes.
    #[must_use]
    pub fn weight(&self) -> u32 {
        // The key, the header values and the cache's own bookkeeping.
        const OVERHEAD: usize = 512;
        u32::try_from(self.body.len() + OVERHEAD).unwrap_or(u32::MAX)
    }
}

fn etag(body: &[u8]) -> HeaderValue {
    // Nobody gains by a collision with their own answer, so the fastest hash will do; the same on every replica.
    HeaderValue::try_from(format!("\"{:032x}\"", xxh3_128(body))).unwrap_or(HeaderValue::from_static("\"\""))
}
