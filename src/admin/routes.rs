//! The resources of the admin listener.
//!
//! | Route | |
//! |---|---|
//! | `GET /healthz` | 200 while the process is alive; no token needed |
//! | `GET /readyz` | 200 if requests can be answered, otherwise 503; no token needed, details with the token |
//! | `GET /metrics` | metrics in Prometheus' text format |
//! | `GET /status` | the data of the status page |
//! | `GET /config` | the configuration in effect, redacted |
//! | `POST /purge` | drops cached entries: those of a linked account, of a tenant, or all |
//! | `GET /explore`, `GET /explore/api/v2/public/execution/…` | reads executions, a document or batches through the gateway, with the credential in the headers |
//! | `GET /`, `/page/…` | the status page; no token needed, since the files contain no data |

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::access::{self, AdminRole};
use super::context::AdminContext;
use super::explorer::{EXPLORE, Explorer};
use super::response::{AdminResponse, PROMETHEUS_TEXT, error_response, json_response, response};
use super::{page, purge, status};
use crate::error::{ClientError, Reason};
use crate::log_events;
use crate::request::peer::Peer;

const READ_METHODS: &str = "GET, HEAD";
const PURGE: &str = "/purge";
const PURGE_METHODS: &str = "POST";

/// Answers one request.
pub(super) async fn answer(
    context: &AdminContext,
    explorer: &Explorer,
    request: Request<Incoming>,
    peer: Peer,
) -> AdminResponse {
    let is_purge = request.uri().path() == PURGE;
    match route(context, explorer, request, peer).await {
        Ok(response) => response,
        Err(error) => {
            if is_purge {
                tracing::warn!(%peer, error_code = error.label(), message = log_events::PURGE_REFUSED);
            }
            error_response(&error)
        }
    }
}

async fn route(
    context: &AdminContext,
    explorer: &Explorer,
    request: Request<Incoming>,
    peer: Peer,
) -> Result<AdminResponse, ClientError> {
    let headers = request.headers();
    access::check_host(&context.address, headers)?;
    let gateway = context.generation.gateway();
    // From the configuration in effect, so that a reload can change the token. If a reload switches the admin listener off, it
    // stays open until the process ends, and answers probes only.
    let admin = &gateway.config().admin;
    let role = match admin.listen_address() {
        Some(_) => access::role(&context.address, admin.token.as_ref(), headers),
        None => AdminRole::Anonymous,
    };
    let path = request.uri().path();
    // A probe reveals and changes nothing, and some load balancers send odd fields.
    if !matches!(path, "/healthz" | "/readyz") {
        access::check_origin(path, headers)?;
    }
    if let Some((content_type, text)) = page::file(path) {
        require_read(request.method())?;
        return Ok(response(StatusCode::OK, content_type, Bytes::from_static(text.as_bytes())));
    }
    match path {
        "/healthz" => {
            require_read(request.method())?;
            Ok(json_response(StatusCode::OK, &json!({ "status": "ok" })))
        }
        "/readyz" => {
            require_read(request.method())?;
            Ok(status::readiness(context, role))
        }
        "/metrics" | "/status" | "/config" => {
            require_read(request.method())?;
            require_operator(role)?;
            Ok(match path {
                "/metrics" => metrics(context),
                "/status" => status::status(context),
                _ => json_response(StatusCode::OK, &gateway.config().redacted()),
            })
        }
        PURGE => {
            if request.method() != Method::POST {
                return Err(ClientError::method_not_allowed(PURGE_METHODS));
            }
            require_operator(role)?;
            purge::purge(&gateway, request, peer).await
        }
        _ if is_explorer(path) => {
            require_read(request.method())?;
            require_operator(role)?;
            explorer.explore(&gateway, request).await
        }
        _ => Err(ClientError::new(Reason::NotFound, "there is no such resource at the admin listener")),
    }
}

fn metrics(context: &AdminContext) -> AdminResponse {
    let generation = context.generation.load();
    let text = generation.gateway.metrics(&context.lifecycle.reloads(), &generation.certificates());
    response(StatusCode::OK, PROMETHEUS_TEXT, text)
}

fn is_explorer(path: &str) -> bool {
    path.strip_prefix(EXPLORE).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn require_read(method: &Method) -> Result<(), ClientError> {
    if *method == Method::GET || *method == Method::HEAD {
        Ok(())
    } else {
        Err(ClientError::method_not_allowed(READ_METHODS))
    }
}

fn require_operator(role: AdminRole) -> Result<(), ClientError> {
    match role {
        AdminRole::Operator => Ok(()),
        AdminRole::Anonymous => Err(ClientError::invalid_credentials()),
    }
}
