//! A request to fetch the answer to a question, and the role of a caller in the fetch.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::cache::{CacheKey, Entry, RenewalClaim};
use crate::caller::Caller;
use crate::limit::Urgency;
use crate::observe::SpanContext;
use crate::upstream::UpstreamTelemetry;

/// A request to fetch the answer to a question: for a caller that waits, or to renew an entry in the background.
pub struct FetchRequest {
    /// The caller whose credential and budget are used.
    pub caller: Caller,
    /// The question, and the partition that its answer belongs to.
    pub key: CacheKey,
    /// The stale entry to revalidate.
    pub stale: Option<Arc<Entry>>,
    /// `Foreground` if a caller waits for it.
    pub urgency: Urgency,
    /// Ask Refold even if the store or a derivation could answer.
    pub bypass_cache: bool,
    /// The use of the answer.
    pub purpose: FetchPurpose,
    /// The claim of the stale entry's renewal. Held until the fetch ends, so that no other request claims the renewal.
    pub claim: Option<RenewalClaim>,
    /// Records the fetch's requests to Refold.
    pub telemetry: UpstreamTelemetry,
    /// Signals that the fetch begins to wait for Refold or for another replica.
    pub begins_wait: Option<oneshot::Sender<()>>,
}

/// The use of a fetch's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchPurpose {
    /// A caller gets it, or it renews a stored entry.
    Response,
    /// The answer to a smaller question is derived from it.
    Derivation,
    /// A derived answer is compared with it.
    Comparison,
}

/// The role of a caller in a fetch.
pub enum FetchRole {
    /// The fetch was started for the caller.
    Leads,
    /// Another fetch was under way already; this is its trace context.
    Follows(Option<SpanContext>),
}

impl FetchRequest {
    /// The renewal of a stale entry in the background, for the reader that has claimed it.
    #[must_use]
    pub fn renewal(
        caller: &Caller,
        key: &CacheKey,
        stale: Arc<Entry>,
        claim: RenewalClaim,
        telemetry: UpstreamTelemetry,
    ) -> Self {
        Self {
            caller: caller.clone(),
            key: key.clone(),
            stale: Some(stale),
            urgency: Urgency::Background,
            bypass_cache: false,
            purpose: FetchPurpose::Response,
            claim: Some(claim),
            telemetry,
            begins_wait: None,
        }
    }

    /// The fetch of a page from which the answer to this request is to be derived, of the same urgency.
    #[must_use]
    pub(super) fn source(&mut self, key: CacheKey, stale: Option<Arc<Entry>>) -> Self {
        Self {
            caller: self.caller.clone(),
            key,
            stale,
            urgency: self.urgency,
            bypass_cache: false,
            purpose: FetchPurpose::Derivation,
            claim: None,
            telemetry: self.telemetry.child(),
            begins_wait: self.begins_wait.take(),
        }
    }

    /// Notes that the answer is neither in the store nor in the second level of the cache.
    pub(super) fn begin_wait(&mut self) {
        if let Some(begins_wait) = self.begins_wait.take() {
            // Fails if the receiver is gone.
            let _ = begins_wait.send(());
        }
    }
}
