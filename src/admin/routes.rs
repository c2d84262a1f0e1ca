//! What there is at the admin listener.
//!
//! | Route | |
//! |---|---|
//! | `GET /healthz` | the process is alive; needs no token |
//! | `GET /readyz` | 200 or 503: requests can be answered; needs no token, and tells more to whoever shows it |
//! | `GET /metrics` | Prometheus' text format |
//! | `GET /status` | everything that the page shows |
//! | `GET /config` | the configuration in effect, redacted |
//! | `POST /purge` | drops what is cached: of a linked account, of a tenant, or all |
//! | `GET /explore` | asks the gateway for a list of executions, with the credential in the headers |
//! | `GET /`, `/page/…` | the status page; needs no token, since no data is in it |

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::answer::{Answer, METRICS, answer as give, error, json as give_json};
use super::explore::Explorer;
use super::{Sources, access, page, purge, status};
use crate::error::{ClientError, Reason};

const READ: &str = "GET, HEAD";
const WRITE: &str = "POST";

/// Answers a request.
pub(super) async fn answer(sources: &Sources, explorer: &Explorer, request: Request<Incoming>) -> Answer {
    match route(sources, explorer, request).await {
        Ok(answer) => answer,
        Err(refused) => error(&refused),
    }
}

async fn route(sources: &Sources, explorer: &Explorer, request: Request<Incoming>) -> Result<Answer, ClientError> {
    let headers = request.headers();
    access::check_host(&sources.address, headers)?;
    let gateway = sources.live.gateway();
    // As it is in the configuration in effect: a token can be changed. Switched off, this listener stays until the process ends,
    // for probes alone.
    let admin = &gateway.config().admin;
    let operator =
        admin.listen_address().is_some() && access::is_operator(&sources.address, admin.token.as_ref(), headers);
    let path = request.uri().path();
    if let Some((kind, file)) = page::file(path) {
        read(request.method())?;
        return Ok(give(StatusCode::OK, kind, Bytes::from_static(file.as_bytes())));
    }
    match path {
        "/healthz" => {
            read(request.method())?;
            Ok(give_json(StatusCode::OK, &json!({ "status": "ok" })))
        }
        "/readyz" => {
            read(request.method())?;
            Ok(status::readiness(sources, operator))
        }
        "/metrics" | "/status" | "/config" | "/explore" => {
            read(request.method())?;
            must_be(operator)?;
            match path {
                "/metrics" => Ok(give(StatusCode::OK, METRICS, gateway.metrics(&sources.lifecycle.reloads()))),
                "/status" => Ok(status::status(sources)),
                "/config" => Ok(give_json(StatusCode::OK, &gateway.config().redacted())),
                _ => explorer.explore(&gateway, request).await,
            }
        }
        "/purge" => {
            if request.method() != Method::POST {
                return Err(ClientError::method_not_allowed(WRITE));
            }
            must_be(operator)?;
            purge::purge(gateway.tenants(), request).await
        }
        _ => Err(ClientError::new(Reason::NotFound, "there is no such resource at the admin listener")),
    }
}

fn read(method: &Method) -> Result<(), ClientError> {
    if *method == Method::GET || *method == Method::HEAD { Ok(()) } else { Err(ClientError::method_not_allowed(READ)) }
}

fn must_be(operator: bool) -> Result<(), ClientError> {
    if operator { Ok(()) } else { Err(ClientError::invalid_credentials()) }
}
