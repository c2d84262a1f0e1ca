//! What is told of requests: everything that a step decided, once the answer is there.

mod latency;
mod live;

use std::time::Duration;

use http::{Method, StatusCode};

pub use self::latency::Quantiles;
pub use self::live::{Latency, Live, RecentError, Traffic};
use crate::cache::CacheKey;
use crate::caller::Caller;
use crate::clock::Moment;
use crate::respond::{CacheResult, RequestId};
use crate::route::Resource;

/// What is known of a request once it is answered.
#[derive(Debug)]
pub struct Record<'a> {
    /// Names it.
    pub request_id: RequestId,
    /// Its method.
    pub method: &'a Method,
    /// What it was about.
    pub resource: Resource,
    /// Who sent it, once that was known.
    pub caller: Option<&'a Caller>,
    /// What it asked, if that is a thing to be cached.
    pub key: Option<&'a CacheKey>,
    /// The status of its answer.
    pub status: StatusCode,
    /// Why it was refused or failed.
    pub error_code: Option<&'a str>,
    /// What the cache did.
    pub cache: CacheResult,
    /// How old the answer was.
    pub age: Option<Duration>,
    /// When that was.
    pub at: Moment,
    /// From its head to the head of its answer.
    pub duration: Duration,
}

/// Whoever watches. One for all workers.
#[derive(Debug, Default)]
pub struct Observer {
    live: Live,
}

impl Observer {
    /// A request was answered. Part of the hit path.
    pub fn answered(&self, record: &Record<'_>) {
        self.live.answered(record);
        tracing::debug!(
            request_id = %record.request_id,
            resource = record.resource.name(),
            status = record.status.as_u16(),
            error_code = record.error_code,
            cache = record.cache.name(),
            "answered"
        );
    }

    /// What is going on.
    #[must_use]
    pub fn live(&self) -> &Live {
        &self.live
    }
}
