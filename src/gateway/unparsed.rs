//! Requests that are answered before a gateway sees them, since their heads can't be parsed.

use std::time::Duration;

use super::Gateway;
use crate::cache::CacheOutcome;
use crate::error::ClientError;
use crate::observe::{AccessError, AccessRecord, RequestOrigin};
use crate::request::RequestId;
use crate::request::method::OTHER_METHOD;
use crate::request::peer::Peer;
use crate::request::route::Resource;

impl Gateway {
    /// Records in metrics and log that a request whose head can't be parsed is answered with an error; returns the id of
    /// the request.
    #[cold]
    pub fn record_unparsed(&self, error: &ClientError, peer: Peer) -> RequestId {
        let request_id = RequestId::new();
        let record = AccessRecord {
            request_id,
            method: OTHER_METHOD,
            origin: RequestOrigin { peer, ..RequestOrigin::default() },
            execution: None,
            bytes: None,
            resource: Resource::Other,
            caller: None,
            key: None,
            canonical: None,
            status: error.status(),
            error: Some(AccessError::from(error)),
            cache: CacheOutcome::NotAsked,
            age: None,
            answered_at: self.clock.now(),
            duration: Duration::ZERO,
            upstream_duration: None,
            trace_id: None,
        };
        self.observer.answered(&self.config.log, &record);
        request_id
    }
}
