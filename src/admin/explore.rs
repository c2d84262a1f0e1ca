//! `GET /explore?…`: the query of a list of executions, run through the gateway as any caller's is, and all that came of it in
//! one JSON object. The page is of this origin and may talk to no other, so it asks here.
//!
//! The credential comes in headers and is never in a URL: `x-api-key` and `linked_account_id` as at the gateway, and
//! `x-explore-authorization` for what is `Authorization` there, which is the admin token's name here.

use std::sync::{Arc, Mutex, PoisonError};

use http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::answer::{Answer, json};
use crate::caller::ListenerIdentity;
use crate::config::Config;
use crate::error::{ClientError, Reason};
use crate::executions::COLLECTION;
use crate::gateway::{self, ConnectionContext, Explained, Gateway};
use crate::http_client::Client;
use crate::request::headers::{LINKED_ACCOUNT_ID, X_API_KEY};

const EXPLORE_AUTHORIZATION: HeaderName = HeaderName::from_static("x-explore-authorization");

/// What came of a query.
#[derive(Serialize)]
struct Explored {
    status: u16,
    headers: Vec<(String, String)>,
    /// Left out if it is not JSON.
    body: Option<Box<RawValue>>,
    /// What the query is to the gateway, if it is a good one of somebody known.
    question: Option<Explained>,
}

/// Where the page's questions come into the gateway.
#[derive(Debug, Default)]
pub(super) struct Explorer {
    /// And the configuration that it was made for.
    scope: Mutex<Option<(Arc<Config>, ConnectionContext)>>,
}

impl Explorer {
    pub(super) async fn explore(
        &self,
        gateway: &Arc<Gateway>,
        request: Request<Incoming>,
    ) -> Result<Answer, ClientError> {
        let scope = self.scope(gateway.config())?;
        let (head, body) = request.into_parts();
        let query = head.uri.query().unwrap_or_default();
        // Of a request target that was read already, so it can be read again.
        let target = Uri::try_from(format!("{COLLECTION}?{query}")).unwrap_or_default();
        let mut question = Request::new(body);
        *question.uri_mut() = target.clone();
        *question.headers_mut() = credentials(&head.headers);
        let headers = question.headers().clone();
        let response = match gateway.handle(&scope, question) {
            gateway::Handled::Response(response) => response,
            gateway::Handled::Unfinished(request) => Arc::clone(gateway).finish(request).await,
        };
        let (answer, body) = response.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let explored = Explored {
            status: answer.status.as_u16(),
            headers: answer.headers.iter().map(text).collect(),
            body: serde_json::from_slice(&body).ok(),
            // Afterwards: an issuer's key may have been fetched meanwhile.
            question: gateway.explain(&scope, &headers, target.query()),
        };
        Ok(json(StatusCode::OK, &explored))
    }

    /// As at the first listener that takes session tokens; but nobody is trusted for being here, and the connections to Refold
    /// are this thread's own.
    fn scope(&self, config: &Arc<Config>) -> Result<ConnectionContext, ClientError> {
        // It is replaced whole.
        let mut made = self.scope.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made_for, scope)) = &*made
            && Arc::ptr_eq(made_for, config)
        {
            return Ok(scope.clone());
        }
        let session_tokens = config.listeners.iter().find_map(|listener| listener.session_tokens);
        let client = Client::new(&config.upstream.connection)
            .map_err(|error| ClientError::new(Reason::UpstreamUnreachable, error.to_string()))?;
        let entrance = ListenerIdentity::for_session_tokens(session_tokens);
        // It waits for as long as whoever explores.
        let scope = ConnectionContext {
            client,
            query_memo: Arc::default(),
            entrance,
            over: watch::Sender::new(false).subscribe(),
        };
        *made = Some((Arc::clone(config), scope.clone()));
        Ok(scope)
    }
}

/// What the gateway is shown: the credential, and nothing else of the request.
fn credentials(headers: &HeaderMap) -> HeaderMap {
    let mut shown = HeaderMap::from_iter([(HOST, HeaderValue::from_static("postern"))]);
    let names =
        [(X_API_KEY, X_API_KEY), (LINKED_ACCOUNT_ID, LINKED_ACCOUNT_ID), (EXPLORE_AUTHORIZATION, AUTHORIZATION)];
    for (name, shown_as) in names {
        for value in headers.get_all(name) {
            let mut value = value.clone();
            value.set_sensitive(true);
            shown.append(shown_as.clone(), value);
        }
    }
    shown
}
