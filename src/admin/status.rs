//! `GET /status` and `GET /readyz`: the state of the gateway and of its process.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;

use super::access::AdminRole;
use super::context::AdminContext;
use super::response::{AdminResponse, json_response};
use crate::gateway::{FleetStatus, Readiness, Status, TenantReadiness};
use crate::lifecycle::Lifecycle;
use crate::upstream::Circuit;

/// The result of the last reload of the configuration.
#[derive(Serialize)]
struct ReloadState {
    /// True if the configuration that was read last is in effect.
    ok: bool,
    /// The reason that it was refused; the previous configuration stays in effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl ReloadState {
    fn of(lifecycle: &Lifecycle) -> Self {
        let error = lifecycle.reloads().last_refusal;
        Self { ok: error.is_none(), error }
    }
}

/// The body of `/status`.
#[derive(Serialize)]
struct StatusBody {
    version: &'static str,
    /// The name of the machine or of the container.
    host: String,
    ready: bool,
    draining: bool,
    configuration: ReloadState,
    #[serde(flatten)]
    status: Status,
}

/// The response to `GET /status`.
pub(super) fn status(context: &AdminContext) -> AdminResponse {
    let (gateway, draining) = (context.generation.gateway(), context.lifecycle.is_draining());
    let body = StatusBody {
        version: env!("CARGO_PKG_VERSION"),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        ready: gateway.readiness().ready && !draining,
        draining,
        configuration: ReloadState::of(&context.lifecycle),
        status: gateway.status(),
    };
    json_response(StatusCode::OK, &body)
}

/// The body of `/readyz`.
#[derive(Serialize)]
struct ReadinessBody {
    ready: bool,
    draining: bool,
    #[serde(flatten)]
    details: Option<ReadinessDetails>,
}

/// The reasons of the readiness, for the operator.
#[derive(Serialize)]
struct ReadinessDetails {
    configuration: ReloadState,
    circuit: Circuit,
    tenants: Vec<TenantReadiness>,
    issuers_without_keys: Vec<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fleet: Option<FleetStatus>,
}

/// The response to `GET /readyz`. A probe without a token learns only if the gateway is ready: the details contain the names of
/// tenants and lines of the configuration.
pub(super) fn readiness(context: &AdminContext, role: AdminRole) -> AdminResponse {
    let draining = context.lifecycle.is_draining();
    let Readiness { ready, circuit, tenants, issuers_without_keys, fleet } = context.generation.gateway().readiness();
    let details = match role {
        AdminRole::Operator => {
            let configuration = ReloadState::of(&context.lifecycle);
            Some(ReadinessDetails { configuration, circuit, tenants, issuers_without_keys, fleet })
        }
        AdminRole::Anonymous => None,
    };
    let body = ReadinessBody { ready: ready && !draining, draining, details };
    let status = if body.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_response(status, &body)
}

#[cfg(test)]
mod tests;
