//! The endpoints: authentication, rate limit, and the documented responses and errors.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, RETRY_AFTER, SET_COOKIE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::arrivals::Arrival;
use super::contrary::{Contrary, ContrarySet, Selection};
use super::fault::Fault;
use super::history::{SimulatedAccount, SimulatedExecution};
use super::parameters::ListParameters;
use super::state::SimulatorState;
use crate::digest::{Hex, sha256};

const EXECUTIONS_PATH: &str = "/api/v2/public/execution";
pub(super) const LINKED_ACCOUNTS_PATH: &str = "/api/v2/public/linked-account";
pub(super) const WEBHOOKS_PATH: &str = "/api/v2/public/webhook";

/// Number of batches of every node.
const BATCHES: u64 = 12;

/// Returns the part of a path below the executions, which is empty or begins with a slash; `None` for every other path.
pub(super) fn below_executions(path: &str) -> Option<&str> {
    path.strip_prefix(EXECUTIONS_PATH).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A response before its JSON is written.
enum SimulatedResponse {
    Ok(Value),
    Error { status: StatusCode, body: Value, retry_after: Option<u64> },
}

/// Answers API requests from the simulator's state.
pub(super) struct Api<'a> {
    state: &'a SimulatorState,
    contrary: ContrarySet,
}

impl<'a> Api<'a> {
    pub(super) fn new(state: &'a SimulatorState) -> Self {
        let contrary = match state.fault() {
            Some(Fault::Contrary(contrary)) => contrary,
            _ => ContrarySet::default(),
        };
        Self { state, contrary }
    }

    /// Answers with lists that contradict each other in these ways.
    pub(super) fn contrary(self, contrary: ContrarySet) -> Self {
        Self { contrary, ..self }
    }

    /// Answers one request for executions.
    pub(super) fn respond<B>(&self, request: &Request<B>) -> Response<Bytes> {
        let response = self.executions(request).unwrap_or_else(|error| error);
        into_http(response, request.headers().get(IF_NONE_MATCH))
    }

    /// Returns the page that a query is answered with at a moment, without authentication and rate limit.
    pub(super) fn peek(&self, linked_account: &str, query: Option<&str>, at: i64) -> Option<Bytes> {
        let account = self.state.history.account(linked_account);
        let page = self.list(&ListParameters::parse(query).ok()?, &account, linked_account, at).ok()?;
        Some(into_http(page, None).into_body())
    }

    /// Answers `GET /api/v2/public/linked-account`: an empty page for a good org key.
    pub(super) fn linked_accounts(&self, headers: &HeaderMap) -> Response<Bytes> {
        let key = headers.get("x-api-key").and_then(|value| value.to_str().ok());
        let is_accepted = key.is_some_and(|key| self.state.accepts_org_key(key));
        let page = json!({ "docs": [], "totalDocs": 0, "limit": 1, "totalPages": 1, "page": 1 });
        into_http(if is_accepted { SimulatedResponse::Ok(page) } else { self.unauthorized() }, None)
    }

    /// Answers `POST /api/v2/public/webhook`.
    pub(super) fn register_webhook(&self, headers: &HeaderMap, body: &[u8]) -> Response<Bytes> {
        let key = headers.get("x-api-key").and_then(|value| value.to_str().ok());
        let response = match key {
            Some(key) if self.state.accepts_org_key(key) => self
                .state
                .subscriptions
                .register(body)
                .map_or_else(|reason| self.invalid(reason), SimulatedResponse::Ok),
            _ => self.unauthorized(),
        };
        into_http(response, None)
    }

    fn executions<B>(&self, request: &Request<B>) -> Result<SimulatedResponse, SimulatedResponse> {
        let path = request.uri().path();
        let rest = below_executions(path).ok_or_else(|| self.not_found())?;
        let account_id = self.authenticate(request.headers())?;
        self.state.watch_account(&account_id);
        let account = self.state.history.account(&account_id);
        let now = self.state.now();
        let segments: Vec<String> = rest
            .split('/')
            .skip(1)
            .map(|segment| percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let execution = |id: &str| match self.state.status_of_id(id) {
            Some(status) => Err(self.server_error(status, "Cast to ObjectId failed")),
            None => account.find(id, now).ok_or_else(|| self.not_found()),
        };
        let parameters = || ListParameters::parse(request.uri().query()).map_err(|name| self.invalid(&name));
        match (request.method(), segments.as_slice()) {
            (&Method::GET, []) => self.list(&parameters()?, &account, &account_id, now),
            (&Method::GET, [id]) => Ok(SimulatedResponse::Ok(detail(&execution(id)?, &account_id))),
            (&Method::GET, [id, "nodes", node, "batches"]) => Ok(batches(&parameters()?, &execution(id)?, node)),
            (&Method::POST, [id, "stop"]) => {
                self.state.history.stop(&account, execution(id)?.number, now);
                Ok(SimulatedResponse::Ok(json!({ "message": "Execution stopped" })))
            }
            (&Method::POST, [id, "rerun"]) => {
                execution(id)?;
                let new = self.state.history.rerun(&account_id, now).ok_or_else(|| self.not_found())?;
                Ok(SimulatedResponse::Ok(json!({ "status": new.status, "id": new.id() })))
            }
            _ => Err(self.not_found()),
        }
    }

    fn list(
        &self,
        parameters: &ListParameters,
        account: &SimulatedAccount,
        account_id: &str,
        now: i64,
    ) -> Result<SimulatedResponse, SimulatedResponse> {
        if self.contrary.refuses(parameters) {
            return Err(self.invalid("execution_type"));
        }
        let Selection { found, total } = self.contrary.select(parameters, account, now);
        let document = |execution| {
            let mut document = summary(execution, account_id);
            if self.contrary.abridges(parameters) {
                document["associated_application"]["icon"] = "".into();
            }
            document
        };
        let docs: Vec<Value> = page_of(&found, parameters).iter().map(document).collect();
        let mut page = page(parameters, total, &docs);
        if total == 0 && self.contrary.has(Contrary::ZeroPages) {
            page["totalPages"] = 0.into();
        }
        Ok(SimulatedResponse::Ok(page))
    }

    /// Returns the linked account of a request with a valid credential, within the rate limit.
    fn authenticate(&self, headers: &HeaderMap) -> Result<String, SimulatedResponse> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = text(AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "));
        let (account_id, org_key) = match (bearer, text("x-api-key")) {
            (Some(token), _) => {
                let account_id = self.state.account_of_session_token(token).ok_or_else(|| self.unknown_token())?;
                // All session tokens belong to the one org, and share the quota of its first key.
                (account_id, self.state.settings.org_keys.first().map_or("", String::as_str))
            }
            (None, Some(key)) if self.state.accepts_org_key(key) => {
                let account_id = text("linked_account_id").filter(|id| !id.is_empty());
                let missing = || self.invalid_account("linked_account_id or org_id is required");
                (account_id.ok_or_else(missing)?.to_owned(), key)
            }
            _ => return Err(self.unauthorized()),
        };
        let at = self.state.clock.now();
        let limited = self.state.rate_limiter.as_ref().map_or(Ok(()), |limiter| limiter.check(org_key, at));
        let linked_account = account_id.clone();
        self.state.arrivals.add(Arrival { at, linked_account, is_limited: limited.is_err() });
        limited.map_err(|wait| self.too_many_requests(wait))?;
        if account_id.starts_with("unknown") {
            return Err(self.invalid_account("linked_account_id is not known"));
        }
        Ok(account_id)
    }

    fn too_many_requests(&self, wait: Duration) -> SimulatedResponse {
        self.state.rate_limited.fetch_add(1, Ordering::SeqCst);
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.error(429, "TOO_MANY_REQUESTS", "RATE_LIMIT_EXCEEDED", "Too many requests", Some(seconds.max(1)))
    }

    fn invalid_account(&self, message: &str) -> SimulatedResponse {
        // The documentation has these two codes in the opposite fields, too.
        self.error(400, "INVALID_LINKED_ACCOUNT_ID", "BAD_REQUEST", message, None)
    }

    fn unauthorized(&self) -> SimulatedResponse {
        self.error(401, "UNAUTHORIZED", "SERVER_ERROR", "Invalid Credentials", None)
    }

    fn unknown_token(&self) -> SimulatedResponse {
        match self.state.status_of_unknown_token() {
            None => self.unauthorized(),
            Some(StatusCode::TOO_MANY_REQUESTS) => self.too_many_requests(Duration::from_mins(1)),
            Some(status) => self.server_error(status, "jwt malformed"),
        }
    }

    fn server_error(&self, status: StatusCode, message: &str) -> SimulatedResponse {
        self.error(status.as_u16(), "INTERNAL_SERVER_ERROR", "SERVER_ERROR", message, None)
    }

    fn invalid(&self, part: &str) -> SimulatedResponse {
        self.error(400, "BAD_REQUEST", "INVALID_PARAMETER", &format!("{part} is not valid"), None)
    }

    /// A 404 with the member `error` instead of `error_code`: Refold documents both shapes.
    fn not_found(&self) -> SimulatedResponse {
        SimulatedResponse::Error {
            status: StatusCode::NOT_FOUND,
            body: json!({
                "status_code": 404,
                "http_error_type": "NOT_FOUND",
                "error": "EXECUTION_NOT_FOUND",
                "message": "Execution not found",
                "request_id": self.state.request_id(),
            }),
            retry_after: None,
        }
    }

    fn error(
        &self,
        status: u16,
        error_type: &str,
        code: &str,
        message: &str,
        retry_after: Option<u64>,
    ) -> SimulatedResponse {
        SimulatedResponse::Error {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            body: json!({
                "status_code": status,
                "http_error_type": error_type,
                "error_code": code,
                "message": message,
                "request_id": self.state.request_id(),
            }),
            retry_after,
        }
    }
}

/// Converts to HTTP; an entity tag that equals `if_none_match` gives 304 without a body.
fn into_http(response: SimulatedResponse, if_none_match: Option<&HeaderValue>) -> Response<Bytes> {
    let (status, body, retry_after) = match response {
        SimulatedResponse::Ok(body) => (StatusCode::OK, body, None),
        SimulatedResponse::Error { status, body, retry_after } => (status, body, retry_after),
    };
    let text = body.to_string();
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // Header fields that a real upstream sends and the gateway has to drop.
    headers.insert("x-powered-by", HeaderValue::from_static("Express"));
    headers.insert(SET_COOKIE, HeaderValue::from_static("session=simulated; Path=/; HttpOnly"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status == StatusCode::OK {
        let tag = etag(text.as_bytes());
        if if_none_match == Some(&tag) {
            headers.insert(ETAG, tag);
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        headers.insert(ETAG, tag);
    }
    *response.body_mut() = text.into();
    response
}

fn batches(parameters: &ListParameters, execution: &SimulatedExecution, node: &str) -> SimulatedResponse {
    let status = |index: u64| if execution.finished.is_none() && index + 2 > BATCHES { "RUNNING" } else { "COMPLETED" };
    let found: Vec<u64> = (0..BATCHES).filter(|index| parameters.matches_status(status(*index))).collect();
    let docs: Vec<Value> = page_of(&found, parameters)
        .iter()
        .map(|index| {
            json!({ "_id": execution.related_id(100 + index), "node_id": node, "batch": index, "status": status(*index) })
        })
        .collect();
    SimulatedResponse::Ok(page(parameters, found.len() as u64, &docs))
}

/// Returns the part of a list that is on the requested page.
fn page_of<'a, T>(found: &'a [T], parameters: &ListParameters) -> &'a [T] {
    let start = (parameters.page - 1).saturating_mul(parameters.limit).min(found.len() as u64);
    let end = start.saturating_add(parameters.limit).min(found.len() as u64);
    // Both are at most the length, which is a usize.
    &found[usize::try_from(start).unwrap_or_default()..usize::try_from(end).unwrap_or_default()]
}

/// Returns the body of a page, with the members of Refold's pagination.
fn page(parameters: &ListParameters, total: u64, docs: &[Value]) -> Value {
    let pages = total.div_ceil(parameters.limit).max(1);
    let (has_previous, has_next) = (parameters.page > 1, parameters.page < pages);
    json!({
        "docs": docs,
        "totalDocs": total,
        "limit": parameters.limit,
        "totalPages": pages,
        "page": parameters.page,
        "pagingCounter": (parameters.page - 1).saturating_mul(parameters.limit).saturating_add(1),
        "hasPrevPage": has_previous,
        "hasNextPage": has_next,
        "prevPage": has_previous.then(|| parameters.page - 1),
        "nextPage": has_next.then(|| parameters.page + 1),
    })
}

fn summary(execution: &SimulatedExecution, linked_account: &str) -> Value {
    let time = |milliseconds| {
        Timestamp::from_millisecond(milliseconds).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
    };
    let (workflow_id, workflow) = execution.workflow;
    let (application, slug, application_id) = execution.application;
    json!({
        "_id": execution.id(),
        "createdAt": time(execution.created),
        "updatedAt": time(execution.finished.unwrap_or(execution.created)),
        "completion_time": execution.finished.map(time),
        "name": format!("{workflow} ({})", execution.number),
        "associated_application": {
            "icon": format!("https://cobalt-app-logos.s3.ap-south-1.amazonaws.com/{slug}/logo.png"),
            "name": application,
            "slug": slug,
            "_id": application_id,
        },
        "status": execution.status,
        "associated_workflow": { "_id": workflow_id, "name": workflow, "icon": "" },
        "environment": "test",
        "config_id": "12345",
        "associated_event_id": execution.related_id(1),
        "linked_account_id": linked_account,
        "type_of_execution": execution.kind,
        "execution_source": execution.source,
    })
}

fn detail(execution: &SimulatedExecution, linked_account: &str) -> Value {
    let mut document = summary(execution, linked_account);
    document["nodes"] = (1..=3)
        .map(|node| json!({ "node_id": node.to_string(), "name": format!("Step {node}"), "status": execution.status }))
        .collect();
    document
}

fn etag(body: &[u8]) -> HeaderValue {
    let tag = format!("\"{}\"", Hex(&sha256(body)[..8]));
    HeaderValue::try_from(tag).expect("quoted hexadecimal digits are a valid header value")
}
