//! `POST /purge`: drops cached entries, in constant time. A fetch that is in flight does not store its answer afterwards.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;

use super::response::{AdminResponse, json_response};
use crate::error::{ClientError, Reason};
use crate::fleet::DropReach;
use crate::gateway::Gateway;
use crate::log_events;
use crate::request::peer::Peer;
use crate::suggest::suggest;
use crate::tenant::Tenant;

/// Largest body, in bytes.
const MAX_BODY: usize = 4 << 10;
/// Longest time for the body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// The body of the request: the entries to drop.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PurgeRequest {
    tenant: Option<String>,
    linked_account: Option<String>,
    #[serde(default)]
    all: bool,
}

/// Answers `POST /purge`.
///
/// # Errors
/// If the body is not one of the three documented forms, or names an unknown tenant.
pub(super) async fn purge(
    gateway: &Gateway,
    request: Request<Incoming>,
    peer: Peer,
) -> Result<AdminResponse, ClientError> {
    let tenants = gateway.tenants();
    require_json(request.headers())?;
    let body = read_body(request.into_body()).await?;
    let request: PurgeRequest =
        serde_json::from_slice(&body).map_err(|error| malformed(format!("the body: {error}")))?;
    let (purged, reach) = match (&request.tenant, &request.linked_account, request.all) {
        (Some(id), Some(account), false) => {
            let reach = find_tenant(tenants, id)?.drop_entries_of(&[account]).await;
            (json!({ "tenant": id, "linked_account": account }), reach)
        }
        (Some(id), None, false) => {
            let reach = find_tenant(tenants, id)?.drop_all_entries().await;
            (json!({ "tenant": id }), reach)
        }
        (None, None, true) => {
            let mut reach = DropReach::Everywhere;
            for tenant in tenants {
                reach = reach.and(tenant.drop_all_entries().await);
            }
            (json!({ "all": true }), reach)
        }
        _ => {
            let message = "the body must be {\"tenant\": …, \"linked_account\": …}, {\"tenant\": …} or {\"all\": true}";
            return Err(malformed(message.to_owned()));
        }
    };
    let one_account = request.linked_account.is_some();
    let naming = gateway.config().log.linked_accounts;
    let linked_account = request.linked_account.as_deref().and_then(|account| naming.name(account));
    let linked_account = linked_account.as_deref();
    tracing::info!(%peer, tenant = request.tenant, one_account, linked_account, message = log_events::PURGED);
    gateway.event(log_events::PURGED, request.tenant.as_deref(), request.linked_account.unwrap_or_default());
    // The other replicas are told when this one is connected again.
    let answer = match reach {
        DropReach::Everywhere => json!({ "purged": purged }),
        DropReach::ThisReplica => json!({ "purged": purged, "only_this_replica": true }),
    };
    Ok(json_response(StatusCode::OK, &answer))
}

/// Checks that the body is JSON. An HTML form can't send this content type, and a script of another origin only after a
/// preflight request, which this listener does not allow.
fn require_json(headers: &HeaderMap) -> Result<(), ClientError> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default();
    if media_type.trim().eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(malformed("the Content-Type must be application/json".to_owned()))
    }
}

async fn read_body(body: Incoming) -> Result<Bytes, ClientError> {
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("the request body is larger than {MAX_BODY} bytes");
            Err(ClientError::new(Reason::PayloadTooLarge, message))
        }
        Ok(Err(_)) => Err(malformed("the request body is broken".to_owned())),
        Err(_) => Err(ClientError::new(Reason::RequestTimeout, "the request body took too long to arrive")),
    }
}

fn malformed(message: String) -> ClientError {
    ClientError::new(Reason::MalformedRequest, message)
}

fn find_tenant<'a>(tenants: &'a [Arc<Tenant>], id: &str) -> Result<&'a Arc<Tenant>, ClientError> {
    tenants.iter().find(|tenant| *tenant.config.id == *id).ok_or_else(|| {
        let suggestion = suggest(id, tenants.iter().map(|tenant| &*tenant.config.id));
        let suggestion = suggestion.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        ClientError::new(Reason::NotFound, format!("there is no tenant `{id}`{suggestion}"))
    })
}
