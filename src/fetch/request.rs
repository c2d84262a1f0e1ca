//! A fetch that is asked for, and the part that its callers have in it.

use std::sync::Arc;

use crate::cache::{CacheKey, Entry, RenewalClaim};
use crate::caller::Caller;
use crate::limit::Urgency;
use crate::observe::Context;
use crate::upstream::UpstreamTelemetry;

/// A fetch that a caller asks for, or that renews an entry.
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
    /// Held until the fetch ends, so that no other reader of the stale entry joins it.
    pub claim: Option<RenewalClaim>,
    /// Records what the fetch asks of Refold.
    pub telemetry: UpstreamTelemetry,
}

/// The part that a caller has in a fetch.
pub enum FetchRole {
    /// The fetch was started for it.
    Leads,
    /// Another fetch was under way already; this is its trace context.
    Follows(Option<Context>),
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
            claim: Some(claim),
            telemetry,
        }
    }
}
