//! The replica in its fleet, as the admin listener shows it.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::Gateway;
use crate::clock::Moment;
use crate::fleet::{Fleet, Members};
use crate::observe::ScrapedFleet;

/// A replica in its fleet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FleetStatus {
    /// The name of the fleet.
    pub name: String,
    /// `shared`, `limbo`, `alone` or `joining`.
    pub state: &'static str,
    /// True if there is a connection to the server.
    pub connected: bool,
    /// The reason why there is none, or why the log can't be read.
    pub problem: Option<Arc<str>>,
    /// Replicas that this one knows of, itself among them.
    pub members: u32,
    /// The number of them whose lease lasts.
    pub live: u32,
    /// The place of this replica among them, from 0.
    pub rank: Option<u32>,
    /// The largest number of replicas that the configuration allows.
    pub replicas: u32,
    /// Seconds since the last beat that the server answered was sent.
    pub lag: Option<f64>,
    /// True while the replica knows which cached entries the others have dropped. Else its entries count as stale.
    pub cache_current: bool,
}

impl Gateway {
    /// The replica in its fleet; `None` without one.
    pub(super) fn fleet_status(&self) -> Option<FleetStatus> {
        let fleet = self.fleet.as_ref()?;
        let now = self.clock.now();
        let Members { known, live, rank } = fleet.members();
        Some(FleetStatus {
            name: fleet.config().name.to_string(),
            state: fleet.state(now).name(),
            connected: fleet.is_connected(),
            problem: fleet.problem(),
            members: known,
            live,
            rank,
            replicas: fleet.config().replicas,
            lag: fleet.lag(now).map(|lag| lag.as_secs_f64()),
            cache_current: fleet.trust().lost_at(now).is_none(),
        })
    }

    /// The replica in its fleet, for Prometheus.
    pub(super) fn scraped_fleet(&self) -> Option<ScrapedFleet> {
        let now = self.clock.now();
        let scraped = |fleet: &Fleet| ScrapedFleet {
            state: fleet.state(now),
            members: fleet.members(),
            replicas: fleet.config().replicas,
            lag: fleet.lag(now).unwrap_or_else(|| since_start(now)),
            is_cache_current: fleet.trust().lost_at(now).is_none(),
        };
        self.fleet.as_ref().map(scraped)
    }
}

fn since_start(now: Moment) -> Duration {
    now.since(Moment::default())
}
