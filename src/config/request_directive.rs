//! `Cache-Control` directives of requests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A `Cache-Control` directive of a request (RFC 9111, 5.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RequestDirective {
    /// Fetch from the upstream.
    NoCache,
    /// Fetch from the upstream, and store nothing.
    NoStore,
    /// No older than this many seconds.
    MaxAge,
    /// Fresh for this many seconds more.
    MinFresh,
    /// Stale for at most this many seconds.
    MaxStale,
    /// 504 instead of a fetch.
    OnlyIfCached,
}

impl RequestDirective {
    /// The directive of a name, in any case.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        const NAMES: [(&str, RequestDirective); 6] = [
            ("no-cache", RequestDirective::NoCache),
            ("no-store", RequestDirective::NoStore),
            ("max-age", RequestDirective::MaxAge),
            ("min-fresh", RequestDirective::MinFresh),
            ("max-stale", RequestDirective::MaxStale),
            ("only-if-cached", RequestDirective::OnlyIfCached),
        ];
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, directive)| *directive)
    }
}
