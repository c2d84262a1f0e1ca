//! `GET /explore?…` and `GET /explore/api/v2/public/execution/…`: asks for executions, a document or the batches of a node
//! through the gateway, as a caller would, and reports the result as one JSON object.
//! The status page uses this resource, since its `Content-Security-Policy` allows no requests to another origin.
//!
//! The credential comes in headers and is never in a URL: `x-api-key` and `linked_account_id` as at the gateway, and
//! `x-explore-authorization` for the gateway's `Authorization`, since here that header has the admin token.

use std::sync::{Arc, Mutex, PoisonError};

use http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Collected};
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::response::{AdminResponse, json_response};
use crate::caller::ListenerIdentity;
use crate::config::{Config, TenantRef};
use crate::error::{ClientError, Reason};
use crate::executions::COLLECTION;
use crate::gateway::{ConnectionContext, Explained, Gateway, Handled, KnownCaller};
use crate::http_client::Client;
use crate::request::body::{CallerBody, UnreadContent};
use crate::request::headers::{LINKED_ACCOUNT_ID, X_API_KEY};

const EXPLORE_AUTHORIZATION: HeaderName = HeaderName::from_static("x-explore-authorization");

/// The path of the explorer at the admin listener.
pub(super) const EXPLORE: &str = "/explore";

/// The body of `/explore`: the gateway's response, and how the gateway read the query.
#[derive(Serialize)]
struct Exploration {
    status: u16,
    headers: Vec<(String, String)>,
    /// The body of the response, if it is JSON.
    body: Option<Box<RawValue>>,
    /// The body of the response, if it is not JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The query as the gateway reads it, if query and credential are valid.
    question: Option<Explained>,
}

/// Sends the status page's requests through the gateway.
#[derive(Debug, Default)]
pub(super) struct Explorer {
    /// The connection context of these requests, and the configuration that it belongs to.
    connection: Mutex<Option<(Arc<Config>, ConnectionContext)>>,
}

impl Explorer {
    /// Answers `GET /explore`.
    ///
    /// # Errors
    /// If the query can't be part of a request target, or the client for Refold can't be set up.
    pub(super) async fn explore(
        &self,
        gateway: &Arc<Gateway>,
        request: Request<Incoming>,
    ) -> Result<AdminResponse, ClientError> {
        let connection = self.connection(gateway.config())?;
        let (head, body) = request.into_parts();
        let query = head.uri.query().unwrap_or_default();
        let target = Uri::try_from(format!("{}?{query}", resource(head.uri.path())?)).map_err(|error| {
            ClientError::new(Reason::MalformedRequest, "the query can't be part of a request target").caused_by(error)
        })?;
        let mut request = Request::new(CallerBody::new(body, None, UnreadContent::Left));
        *request.uri_mut() = target.clone();
        *request.headers_mut() = credential_headers(&head.headers);
        let (mut explained, ()) = Request::new(()).into_parts();
        explained.uri = target;
        explained.headers = request.headers().clone();
        let response = match gateway.handle(&connection, request) {
            Handled::Response(response) => response,
            Handled::Unfinished(request) => Arc::clone(gateway).finish(request).await,
        };
        let (response, body) = response.into_parts();
        let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let parsed: Option<Box<RawValue>> = serde_json::from_slice(&body).ok();
        let exploration = Exploration {
            status: response.status.as_u16(),
            headers: response.headers.iter().map(text).collect(),
            text: parsed.is_none().then(|| String::from_utf8_lossy(&body).into_owned()),
            body: parsed,
            // Explained after the request, which may have fetched the keys of the token's issuer.
            question: gateway.explain(&connection, &explained),
        };
        Ok(json_response(StatusCode::OK, &exploration))
    }

    /// The connection context of these requests. Session tokens are accepted for the same tenant as on the first listener
    /// that accepts them. No request is authenticated by a listener alone. The connections to Refold belong to this thread.
    fn connection(&self, config: &Arc<Config>) -> Result<ConnectionContext, ClientError> {
        // The value is only replaced as a whole, so a panic leaves no inconsistent one.
        let mut present = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made_for, connection)) = &*present
            && Arc::ptr_eq(made_for, config)
        {
            return Ok(connection.clone());
        }
        let session_tokens =
            config.listeners.iter().find_map(|listener| listener.session_tokens.as_ref().map(TenantRef::index));
        let client = Client::new(&config.upstream.connection())
            .map_err(|error| ClientError::new(Reason::UpstreamUnreachable, error.to_string()))?;
        let identity = ListenerIdentity::for_session_tokens(session_tokens);
        // A drain does not abandon these requests: the sender is dropped, so the value never becomes true.
        let connection = ConnectionContext {
            client,
            query_memo: Arc::default(),
            identity,
            abandon: watch::Sender::new(false).subscribe(),
            known_caller: KnownCaller::default(),
            half_close: None,
        };
        *present = Some((Arc::clone(config), connection.clone()));
        Ok(connection)
    }
}

/// The path of the resource at the gateway: one of those whose responses can be cached.
fn resource(path: &str) -> Result<&str, ClientError> {
    let path = path.strip_prefix(EXPLORE).unwrap_or_default();
    if path.is_empty() {
        return Ok(COLLECTION);
    }
    let segments = path.strip_prefix(COLLECTION).map(|rest| rest.split('/').collect::<Vec<_>>());
    match segments.as_deref() {
        Some([""] | ["", _] | ["", _, "nodes", _, "batches"]) => Ok(path),
        _ => {
            Err(ClientError::new(Reason::NotFound, "the explorer reads executions and the batches of their nodes only"))
        }
    }
}

/// The headers of the request to the gateway: the credential, and no other header of the status page's request.
fn credential_headers(headers: &HeaderMap) -> HeaderMap {
    const NAMES: [(HeaderName, HeaderName); 3] =
        [(X_API_KEY, X_API_KEY), (LINKED_ACCOUNT_ID, LINKED_ACCOUNT_ID), (EXPLORE_AUTHORIZATION, AUTHORIZATION)];
    let mut sent = HeaderMap::from_iter([(HOST, HeaderValue::from_static("postern"))]);
    for (name, sent_as) in NAMES {
        for value in headers.get_all(name) {
            let mut value = value.clone();
            value.set_sensitive(true);
            sent.append(sent_as.clone(), value);
        }
    }
    sent
}
