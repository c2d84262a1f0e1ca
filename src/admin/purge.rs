//! `POST /purge`: drops what is cached, in O(1). A fetch that is under way can't put it back.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;

use super::answer::{Answer, json as give_json};
use crate::error::{ClientError, Reason};
use crate::log_events;
use crate::suggest::suggest;
use crate::tenant::Tenant;

/// Largest body, in bytes.
const LARGEST_BODY: usize = 4 << 10;
/// How long a body is waited for.
const BODY: Duration = Duration::from_secs(5);

/// What is to be dropped.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Purge {
    tenant: Option<String>,
    linked_account: Option<String>,
    #[serde(default)]
    all: bool,
}

pub(super) async fn purge(tenants: &[Arc<Tenant>], request: Request<Incoming>) -> Result<Answer, ClientError> {
    // A form of somebody else's page can't send this without asking first, and nobody answers that it may.
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Err(malformed("the Content-Type has to be application/json".to_owned()));
    }
    let read = Limited::new(request.into_body(), LARGEST_BODY).collect();
    let body = match tokio::time::timeout(BODY, read).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let message = format!("the request body is larger than {LARGEST_BODY} bytes");
            return Err(ClientError::new(Reason::PayloadTooLarge, message));
        }
        Ok(Err(_)) => return Err(malformed("the request body is broken".to_owned())),
        Err(_) => return Err(ClientError::new(Reason::RequestTimeout, "the request body took too long to arrive")),
    };
    let wanted: Purge = serde_json::from_slice(&body).map_err(|error| malformed(format!("the body: {error}")))?;
    let purged = match (&wanted.tenant, &wanted.linked_account, wanted.all) {
        (Some(id), Some(account), false) => {
            find(tenants, id)?.drop_entries_of(account);
            json!({ "tenant": id, "linked_account": account })
        }
        (Some(id), None, false) => {
            find(tenants, id)?.drop_all_entries();
            json!({ "tenant": id })
        }
        (None, None, true) => {
            for tenant in tenants {
                tenant.drop_all_entries();
            }
            json!({ "all": true })
        }
        _ => {
            let message = "the body is {\"tenant\": …, \"linked_account\": …}, {\"tenant\": …} or {\"all\": true}";
            return Err(malformed(message.to_owned()));
        }
    };
    tracing::info!(tenant = wanted.tenant, one_account = wanted.linked_account.is_some(), message = log_events::PURGED);
    Ok(give_json(StatusCode::OK, &json!({ "purged": purged })))
}

fn malformed(message: String) -> ClientError {
    ClientError::new(Reason::MalformedRequest, message)
}

fn find<'a>(tenants: &'a [Arc<Tenant>], id: &str) -> Result<&'a Arc<Tenant>, ClientError> {
    tenants.iter().find(|tenant| *tenant.config.id == *id).ok_or_else(|| {
        let suggestion = suggest(id, tenants.iter().map(|tenant| &*tenant.config.id));
        let suggestion = suggestion.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        ClientError::new(Reason::NotFound, format!("there is no tenant `{id}`{suggestion}"))
    })
}
