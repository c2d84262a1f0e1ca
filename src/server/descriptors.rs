//! File descriptors: the soft limit is raised at start, and some descriptors are kept back from callers' connections, for the
//! admin listener, for connections to Refold and for files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::admission::{Bounds, SPARE};
use crate::admin;
use crate::config::Config;
use crate::log_events;

/// Descriptors of the runtimes, of standard streams and of files, and of connections to issuers and collectors.
const OWN: usize = 64;

/// Raises the soft limit on open descriptors to the hard one, as programs that do not call `select` should.
pub(super) fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::debug!(%error, message = log_events::DESCRIPTOR_LIMIT_KEPT);
    }
}

/// Returns the bounds on connections for a configuration; logs if there are fewer descriptors than `max_connections` needs.
pub(super) fn bounds(config: &Config, workers: usize) -> Bounds {
    let configured = config.server.max_connections.get() as usize;
    let unidentified_bytes = config.server.max_unidentified_memory.as_usize();
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return Bounds { connections: configured, unidentified_bytes };
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let connections = configured.min(limit.saturating_sub(kept_back(config, workers, limit)).max(1));
    if connections < configured {
        tracing::warn!(descriptors = limit, max_connections = connections, message = log_events::CONNECTIONS_LIMITED);
    }
    Bounds { connections, unidentified_bytes }
}

/// Returns the number of descriptors that callers' connections must leave: half of all at most.
fn kept_back(config: &Config, workers: usize, limit: usize) -> usize {
    // Each worker has an accepted connection in hand for each listener while it waits for a place.
    let listeners = 2 * workers * config.listeners.len();
    let upstream = config.upstream.max_concurrent + workers * config.upstream.pool_idle_per_worker;
    (OWN + SPARE + listeners + admin::MAX_CONNECTIONS + upstream).min(limit / 2)
}
