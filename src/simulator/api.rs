//! The endpoints: who asks, what for, and the documented answers and errors.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, RETRY_AFTER, SET_COOKIE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Simulator;
use super::filter::Filter;
use super::history::{Account, Execution};
use crate::digest::{Hex, sha256};

pub(super) const COLLECTION: &str = "/api/v2/public/execution";

/// Batches of every node.
const BATCHES: u64 = 12;

/// An answer before it is HTTP.
enum Reply {
    Ok(Value),
    Error { status: StatusCode, body: Value, retry_after: Option<u64> },
}

impl Simulator {
    /// Answers one request, without a socket and without faults.
    pub fn respond<B>(&self, request: &Request<B>) -> Response<Bytes> {
        let reply = self.reply(request).unwrap_or_else(|error| error);
        render(reply, request.headers().get(IF_NONE_MATCH))
    }

    /// The page that a query would be answered with now; nobody is asked for a credential, and nothing is counted.
    #[must_use]
    pub fn peek(&self, linked_account: &str, query: Option<&str>) -> Option<Bytes> {
        let now = self.0.clock.wall().as_millisecond();
        let account = self.0.history.account(linked_account);
        let page = list(&Filter::parse(query).ok()?, &account, linked_account, now);
        Some(render(page, None).into_body())
    }

    /// Answers the registration of a webhook.
    pub(super) fn respond_to_registration(&self, headers: &HeaderMap, body: &[u8]) -> Response<Bytes> {
        let key = headers.get("x-api-key").and_then(|value| value.to_str().ok());
        let reply = match key {
            Some(key) if self.0.settings.org_keys.iter().any(|known| known == key) => {
                self.0.webhooks.register(body).map_or_else(|why| self.invalid(why), Reply::Ok)
            }
            _ => self.unauthorized(),
        };
        render(reply, None)
    }

    fn reply<B>(&self, request: &Request<B>) -> Result<Reply, Reply> {
        let path = request.uri().path();
        let rest = path.strip_prefix(COLLECTION).ok_or_else(|| self.not_found())?;
        let (id, account) = self.authenticate(request.headers())?;
        let now = self.0.clock.wall().as_millisecond();
        let segments: Vec<String> = rest
            .split('/')
            .skip(1)
            .map(|segment| percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let execution = |wanted: &str| account.find(wanted, now).ok_or_else(|| self.not_found());
        let filter = || Filter::parse(request.uri().query()).map_err(|parameter| self.invalid(&parameter));
        match (request.method(), segments.as_slice()) {
            (&Method::GET, []) => Ok(list(&filter()?, &account, &id, now)),
            (&Method::GET, [wanted]) => Ok(Reply::Ok(detail(&execution(wanted)?, &id))),
            (&Method::GET, [wanted, "nodes", node, "batches"]) => Ok(batches(&filter()?, &execution(wanted)?, node)),
            (&Method::POST, [wanted, "stop"]) => {
                self.0.history.stop(&account, execution(wanted)?.number, now);
                Ok(Reply::Ok(json!({ "message": "Execution stopped" })))
            }
            (&Method::POST, [wanted, "rerun"]) => {
                execution(wanted)?;
                let new = self.0.history.rerun(&id, now).ok_or_else(|| self.not_found())?;
                Ok(Reply::Ok(json!({ "status": new.status, "id": new.id() })))
            }
            _ => Err(self.not_found()),
        }
    }

    /// The linked account of a good credential, within the published rate limit.
    fn authenticate(&self, headers: &HeaderMap) -> Result<(String, Account), Reply> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = text(AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "));
        // Both credentials count for the one org there is.
        let (id, org_key) = match (bearer, text("x-api-key")) {
            (Some(token), _) => (self.holder(token).ok_or_else(|| self.unauthorized())?, "session"),
            (None, Some(key)) if self.0.settings.org_keys.iter().any(|known| known == key) => {
                let id = text("linked_account_id").filter(|id| !id.is_empty());
                (id.ok_or_else(|| self.no_account("linked_account_id or org_id is required"))?.to_owned(), key)
            }
            _ => return Err(self.unauthorized()),
        };
        if let Some(rate) = &self.0.rate {
            let budget = if org_key == "session" {
                self.0.settings.org_keys.first().map_or("", String::as_str)
            } else {
                org_key
            };
            rate.check(budget, self.0.clock.now()).map_err(|wait| {
                self.0.rate_limited.fetch_add(1, Ordering::SeqCst);
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                self.error(429, "TOO_MANY_REQUESTS", "RATE_LIMIT_EXCEEDED", "Too many requests", Some(seconds.max(1)))
            })?;
        }
        if id.starts_with("unknown") {
            return Err(self.no_account("linked_account_id is not known"));
        }
        super::lock(&self.0.known).insert(id.clone());
        let account = self.0.history.account(&id);
        Ok((id, account))
    }

    fn no_account(&self, message: &str) -> Reply {
        // Swapped, as in the documentation.
        self.error(400, "INVALID_LINKED_ACCOUNT_ID", "BAD_REQUEST", message, None)
    }

    fn unauthorized(&self) -> Reply {
        self.error(401, "UNAUTHORIZED", "SERVER_ERROR", "Invalid Credentials", None)
    }

    fn invalid(&self, parameter: &str) -> Reply {
        self.error(400, "BAD_REQUEST", "INVALID_PARAMETER", &format!("{parameter} is not valid"), None)
    }

    /// The variant that says `error` instead of `error_code`.
    fn not_found(&self) -> Reply {
        Reply::Error {
            status: StatusCode::NOT_FOUND,
            body: json!({
                "status_code": 404,
                "http_error_type": "NOT_FOUND",
                "error": "EXECUTION_NOT_FOUND",
                "message": "Execution not found",
                "request_id": self.next_request_id(),
            }),
            retry_after: None,
        }
    }

    fn error(&self, status: u16, kind: &str, code: &str, message: &str, retry_after: Option<u64>) -> Reply {
        Reply::Error {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            body: json!({
                "status_code": status,
                "http_error_type": kind,
                "error_code": code,
                "message": message,
                "request_id": self.next_request_id(),
            }),
            retry_after,
        }
    }
}

/// An answer as HTTP; one that is known already is not repeated.
fn render(reply: Reply, known: Option<&HeaderValue>) -> Response<Bytes> {
    let (status, body, retry_after) = match reply {
        Reply::Ok(body) => (StatusCode::OK, body, None),
        Reply::Error { status, body, retry_after } => (status, body, retry_after),
    };
    let text = body.to_string();
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // The noise of a real one.
    headers.insert("x-powered-by", HeaderValue::from_static("Express"));
    headers.insert(SET_COOKIE, HeaderValue::from_static("session=simulated; Path=/; HttpOnly"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status == StatusCode::OK {
        let tag = etag(text.as_bytes());
        if known == Some(&tag) {
            headers.insert(ETAG, tag);
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        headers.insert(ETAG, tag);
    }
    *response.body_mut() = text.into();
    response
}

fn list(filter: &Filter, account: &Account, id: &str, now: i64) -> Reply {
    let found = filter.select(account, now);
    let docs: Vec<Value> = slice(&found, filter).iter().map(|execution| summary(execution, id)).collect();
    Reply::Ok(paginate(filter, found.len() as u64, &docs))
}

fn batches(filter: &Filter, execution: &Execution, node: &str) -> Reply {
    let status = |index: u64| if execution.finished.is_none() && index + 2 > BATCHES { "RUNNING" } else { "COMPLETED" };
    let found: Vec<u64> = (0..BATCHES).filter(|index| filter.takes_status(status(*index))).collect();
    let docs: Vec<Value> = slice(&found, filter)
        .iter()
        .map(|index| {
            json!({ "_id": execution.related_id(100 + index), "node_id": node, "batch": index, "status": status(*index) })
        })
        .collect();
    Reply::Ok(paginate(filter, found.len() as u64, &docs))
}

fn slice<'a, T>(found: &'a [T], filter: &Filter) -> &'a [T] {
    let start = (filter.page - 1).saturating_mul(filter.limit).min(found.len() as u64);
    let end = start.saturating_add(filter.limit).min(found.len() as u64);
    // Both are at most the length.
    &found[usize::try_from(start).unwrap_or_default()..usize::try_from(end).unwrap_or_default()]
}

fn paginate(filter: &Filter, total: u64, docs: &[Value]) -> Value {
    let pages = total.div_ceil(filter.limit).max(1);
    let (previous, next) = (filter.page > 1, filter.page < pages);
    json!({
        "docs": docs,
        "totalDocs": total,
        "limit": filter.limit,
        "totalPages": pages,
        "page": filter.page,
        "pagingCounter": (filter.page - 1).saturating_mul(filter.limit) + 1,
        "hasPrevPage": previous,
        "hasNextPage": next,
        "prevPage": previous.then(|| filter.page - 1),
        "nextPage": next.then(|| filter.page + 1),
    })
}

fn summary(execution: &Execution, linked_account: &str) -> Value {
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

fn detail(execution: &Execution, linked_account: &str) -> Value {
    let mut document = summary(execution, linked_account);
    document["nodes"] = (1..=3)
        .map(|node| json!({ "node_id": node.to_string(), "name": format!("Step {node}"), "status": execution.status }))
        .collect();
    document
}

fn etag(body: &[u8]) -> HeaderValue {
    HeaderValue::try_from(format!("\"{}\"", Hex(&sha256(body)[..8]))).unwrap_or(HeaderValue::from_static("\"\""))
}
