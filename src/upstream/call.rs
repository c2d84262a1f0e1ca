//! The context of a call to Refold.

use super::telemetry::UpstreamTelemetry;
use crate::cache::{Demand, Entry};
use crate::caller::Caller;
use crate::http_client::Client;
use crate::limit::Urgency;

/// The context of everything that is sent to Refold for one request or renewal.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamCall<'a> {
    /// The worker's client for Refold.
    pub client: &'a Client,
    /// The caller on whose behalf requests are sent.
    pub caller: &'a Caller,
    /// The recorder of what is sent.
    pub telemetry: &'a UpstreamTelemetry,
}

/// The demand for a fetch, which decides its place in the queue.
#[derive(Clone, Copy, Debug)]
pub struct FetchDemand<'a> {
    /// The urgency with which the fetch begins.
    pub urgency: Urgency,
    /// The callers that wait for the fetch now.
    pub demand: &'a Demand,
    /// The entry to be renewed; the fetch is conditional if the entry has a validator.
    pub stale: Option<&'a Entry>,
    /// A derived answer is compared with the response. In the background the fetch is before all others, however old the entries
    /// are that those renew; in the foreground it has a flow of its own, so that it goes ahead of callers.
    pub is_comparison: bool,
}

impl FetchDemand<'_> {
    /// Waits until the fetch is of no use: the last caller of a fetch that began for callers disconnects.
    pub(super) async fn ended(&self) {
        match self.urgency {
            Urgency::Foreground => self.demand.lost().await,
            Urgency::Background => std::future::pending().await,
        }
    }
}
