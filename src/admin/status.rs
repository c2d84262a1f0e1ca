//! `GET /status` and `GET /readyz`: how the gateway and the process around it stand.

use http::StatusCode;
use serde::Serialize;

use super::Sources;
use super::answer::{Answer, json};
use crate::gateway::{Readiness, Status, TenantReadiness};
use crate::lifecycle::Lifecycle;
use crate::upstream::Circuit;

/// What became of the configuration that was read last.
#[derive(Serialize)]
struct Configuration {
    /// It is in effect.
    ok: bool,
    /// Why it is not; the one before it is still in effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Configuration {
    fn of(lifecycle: &Lifecycle) -> Self {
        let error = lifecycle.reloads().last_refusal;
        Self { ok: error.is_none(), error }
    }
}

/// Everything that the page shows.
#[derive(Serialize)]
struct Everything {
    version: &'static str,
    ready: bool,
    draining: bool,
    configuration: Configuration,
    #[serde(flatten)]
    status: Status,
}

pub(super) fn status(sources: &Sources) -> Answer {
    let (gateway, draining) = (sources.live.gateway(), sources.lifecycle.is_draining());
    let everything = Everything {
        version: env!("CARGO_PKG_VERSION"),
        ready: gateway.readiness().ready && !draining,
        draining,
        configuration: Configuration::of(&sources.lifecycle),
        status: gateway.status(),
    };
    json(StatusCode::OK, &everything)
}

#[derive(Serialize)]
struct Verdict {
    ready: bool,
    draining: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<Configuration>,
    #[serde(flatten)]
    details: Option<Details>,
}

#[derive(Serialize)]
struct Details {
    circuit: Circuit,
    tenants: Vec<TenantReadiness>,
}

/// A probe needs no token and gets the verdict; the reasons name tenants and lines of the configuration, so they are for
/// whoever runs the gateway.
pub(super) fn readiness(sources: &Sources, operator: bool) -> Answer {
    let draining = sources.lifecycle.is_draining();
    let Readiness { ready, circuit, tenants } = sources.live.gateway().readiness();
    let verdict = Verdict {
        ready: ready && !draining,
        draining,
        configuration: operator.then(|| Configuration::of(&sources.lifecycle)),
        details: operator.then_some(Details { circuit, tenants }),
    };
    let status = if verdict.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &verdict)
}
