//! `GET /status` and `GET /readyz`: how the gateway and the process around it stand.

use http::StatusCode;
use serde::Serialize;

use super::Sources;
use super::answer::{Answer, json};
use super::process::Configuration;
use crate::gateway::{Readiness, Status};

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
    let draining = sources.process.is_draining();
    let everything = Everything {
        version: env!("CARGO_PKG_VERSION"),
        ready: sources.gateway.readiness().ready && !draining,
        draining,
        configuration: sources.process.configuration(),
        status: sources.gateway.status(),
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
    circuit: crate::resilience::Circuit,
    tenants: Vec<crate::gateway::TenantReadiness>,
}

/// A probe needs no token and gets the verdict; the reasons name tenants and lines of the configuration, so they are for
/// whoever runs the gateway.
pub(super) fn readiness(sources: &Sources, operator: bool) -> Answer {
    let draining = sources.process.is_draining();
    let Readiness { ready, circuit, tenants } = sources.gateway.readiness();
    let verdict = Verdict {
        ready: ready && !draining,
        draining,
        configuration: operator.then(|| sources.process.configuration()),
        details: operator.then_some(Details { circuit, tenants }),
    };
    let status = if verdict.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &verdict)
}
