//! Method and path to the endpoint that is asked, and the refusal of what no step behind this one should ever see.

use std::borrow::Cow;

use http::header::{HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Method, Version};

use crate::config::{self, PassThrough};
use crate::error::{ClientError, Reason};
use crate::executions::{COLLECTION, PathId};

/// A resource of the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `GET /api/v2/public/execution`
    List,
    /// `GET /api/v2/public/execution/{execution_id}`
    Document(PathId),
    /// `GET /api/v2/public/execution/{execution_id}/nodes/{node_id}/batches`
    Batches(PathId, PathId),
    /// `POST /api/v2/public/execution/{id}/stop` or `.../rerun`
    Action(PathId, Action),
    /// An entry of the allow-list, by its index.
    Other(usize),
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To a resource.
    To(Endpoint),
    /// `POST /hooks/refold/{tenant}`, which no caller sends; the tenant's id as it stands in the path.
    Hook(Box<str>),
    /// `OPTIONS` on a resource that has these methods: a browser asks what it may do.
    Preflight(Cow<'static, str>),
}

/// What kind of resource a request is about, for whoever watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// A page of executions.
    List,
    /// One execution.
    Document,
    /// A page of batches.
    Batches,
    /// An execution is stopped.
    Stop,
    /// An execution is run again.
    Rerun,
    /// The rest of the API.
    PassThrough,
    /// A webhook's delivery.
    Webhook,
    /// A preflight, or nothing that there is.
    Other,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::List,
        Self::Document,
        Self::Batches,
        Self::Stop,
        Self::Rerun,
        Self::PassThrough,
        Self::Webhook,
        Self::Other,
    ];

    /// Its name in logs and labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Document => "document",
            Self::Batches => "batches",
            Self::Stop => "stop",
            Self::Rerun => "rerun",
            Self::PassThrough => "pass_through",
            Self::Webhook => "webhook",
            Self::Other => "other",
        }
    }

    /// The template of its path, if all of its kind share one.
    #[must_use]
    pub fn route(self) -> Option<&'static str> {
        match self {
            Self::List => Some("/api/v2/public/execution"),
            Self::Document => Some("/api/v2/public/execution/{execution_id}"),
            Self::Batches => Some("/api/v2/public/execution/{execution_id}/nodes/{node_id}/batches"),
            Self::Stop => Some("/api/v2/public/execution/{execution_id}/stop"),
            Self::Rerun => Some("/api/v2/public/execution/{execution_id}/rerun"),
            Self::Webhook => Some("/hooks/refold/{tenant}"),
            Self::PassThrough | Self::Other => None,
        }
    }
}

impl Route {
    /// What kind of resource it leads to.
    #[must_use]
    pub fn resource(&self) -> Resource {
        match self {
            Self::To(Endpoint::List) => Resource::List,
            Self::To(Endpoint::Document(_)) => Resource::Document,
            Self::To(Endpoint::Batches(..)) => Resource::Batches,
            Self::To(Endpoint::Action(_, Action::Stop)) => Resource::Stop,
            Self::To(Endpoint::Action(_, Action::Rerun)) => Resource::Rerun,
            Self::To(Endpoint::Other(_)) => Resource::PassThrough,
            Self::Hook(_) => Resource::Webhook,
            Self::Preflight(_) => Resource::Other,
        }
    }
}

/// What can be done to an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Stop it.
    Stop,
    /// Run it again.
    Rerun,
}

impl Action {
    /// The last segment of its path.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Rerun => "rerun",
        }
    }
}

/// Where Refold's webhooks come in.
const HOOKS: &str = "/hooks/refold/";
const READ: &str = "GET, HEAD";
const WRITE: &str = "POST";

/// Finds the endpoint of a request, or the reason why it gets no further.
///
/// # Errors
/// 431, 414, 400 for a head that HTTP forbids or that could be read in two ways, 404, 405.
pub fn route(head: &Parts, limits: &config::Server, others: &[PassThrough]) -> Result<Route, ClientError> {
    check_head(head, limits)?;
    match own(head) {
        Some(own) => own,
        None => other(head, others),
    }
}

/// What is answered here itself; `None` if there is no such resource.
fn own(head: &Parts) -> Option<Result<Route, ClientError>> {
    let path = head.uri.path();
    if let Some(tenant) = path.strip_prefix(HOOKS) {
        return (!tenant.contains('/')).then(|| write(&head.method, || Ok(Route::Hook(tenant.into()))));
    }
    let rest = path.strip_prefix(COLLECTION)?;
    if rest.is_empty() {
        return Some(read(&head.method, || Ok(Endpoint::List)));
    }
    let mut segments = rest.strip_prefix('/')?.split('/');
    let id = |segment: Option<&str>| PathId::parse(segment.unwrap_or_default()).map_err(ClientError::from);
    Some(match (segments.next(), segments.next(), segments.next(), segments.next(), segments.next()) {
        (Some(execution), None, ..) if !execution.is_empty() => {
            read(&head.method, || Ok(Endpoint::Document(id(Some(execution))?)))
        }
        (execution, Some("stop"), None, ..) => {
            write(&head.method, || Ok(Route::To(Endpoint::Action(id(execution)?, Action::Stop))))
        }
        (execution, Some("rerun"), None, ..) => {
            write(&head.method, || Ok(Route::To(Endpoint::Action(id(execution)?, Action::Rerun))))
        }
        (execution, Some("nodes"), node, Some("batches"), None) => {
            read(&head.method, || Ok(Endpoint::Batches(id(execution)?, id(node)?)))
        }
        _ => return None,
    })
}

/// What of the rest of the API may pass.
fn other(head: &Parts, others: &[PassThrough]) -> Result<Route, ClientError> {
    let path = head.uri.path();
    let matching = || others.iter().enumerate().filter(|(_, other)| other.path.matches(path));
    if matching().next().is_none() {
        return Err(ClientError::new(Reason::NotFound, "there is no such resource here"));
    }
    // A path that another server could read as another one does not pass.
    for segment in path.split('/').skip(1) {
        PathId::parse(segment)?;
    }
    if let Some((index, _)) = matching().find(|(_, other)| other.methods.contains(&head.method)) {
        return Ok(Route::To(Endpoint::Other(index)));
    }
    let methods: Vec<&str> = matching().flat_map(|(_, other)| &other.methods).map(Method::as_str).collect();
    let methods = methods.join(", ");
    if head.method == Method::OPTIONS {
        Ok(Route::Preflight(methods.into()))
    } else {
        Err(ClientError::method_not_allowed(methods))
    }
}

fn read(method: &Method, endpoint: impl FnOnce() -> Result<Endpoint, ClientError>) -> Result<Route, ClientError> {
    if *method == Method::GET || *method == Method::HEAD {
        endpoint().map(Route::To)
    } else if *method == Method::OPTIONS {
        Ok(Route::Preflight(READ.into()))
    } else {
        Err(ClientError::method_not_allowed(READ))
    }
}

fn write(method: &Method, route: impl FnOnce() -> Result<Route, ClientError>) -> Result<Route, ClientError> {
    if *method == Method::POST {
        route()
    } else if *method == Method::OPTIONS {
        Ok(Route::Preflight(WRITE.into()))
    } else {
        Err(ClientError::method_not_allowed(WRITE))
    }
}

/// The HTTP library takes heads that RFC 9112 has a server refuse; it also has larger bounds, so that ours are answered
/// in the documented shape.
fn check_head(head: &Parts, limits: &config::Server) -> Result<(), ClientError> {
    let malformed = |message| Err(ClientError::new(Reason::MalformedRequest, message));
    let uri_length = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if uri_length > limits.max_uri_length.as_usize() {
        let message = format!("the request target is longer than {} bytes", limits.max_uri_length.bytes());
        return Err(ClientError::new(Reason::UriTooLong, message));
    }
    let (mut bytes, mut hosts, mut coded) = (0, 0, false);
    for (name, value) in &head.headers {
        bytes += name.as_str().len() + value.len() + 4;
        hosts += usize::from(*name == HOST);
        coded |= *name == TRANSFER_ENCODING;
    }
    if bytes > limits.max_header_size.as_usize() {
        let message = format!("the request headers are larger than {} bytes", limits.max_header_size.bytes());
        return Err(ClientError::new(Reason::HeadersTooLarge, message));
    }
    match hosts {
        0 if head.version == Version::HTTP_11 => return malformed("the Host header is missing"),
        0 | 1 => {}
        _ => return malformed("the Host header is there twice"),
    }
    // The HTTP library drops a Content-Length beside it, and closes the connection afterwards (RFC 9112, 6.3). Nobody who
    // only wants to read sends one: whoever does, wants to be read in two ways.
    let reads = head.method == Method::GET || head.method == Method::HEAD;
    if reads && coded {
        return malformed("a request that reads has no body, and no Transfer-Encoding");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{Request, StatusCode};

    use super::*;

    const LIMITS: config::Server = config::Server {
        workers: 1,
        header_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(1),
        body_timeout: Duration::from_secs(1),
        max_header_size: config::ByteSize::from_bytes(200),
        max_uri_length: config::ByteSize::from_bytes(100),
        max_request_body: config::ByteSize::from_bytes(10),
        drain_timeout: Duration::from_secs(1),
    };

    fn ask(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<Endpoint, StatusCode> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).expect("the test's request is valid").into_parts();
        match route(&head, &LIMITS, &[]) {
            Ok(Route::To(endpoint)) => Ok(endpoint),
            Ok(other) => panic!("{other:?} is no resource"),
            Err(error) => Err(error.status()),
        }
    }

    const HOST: (&str, &str) = ("host", "localhost");

    #[test]
    fn every_documented_route_is_found() {
        let id = |text| PathId::parse(text).expect("a plain id");
        let found = |method, target| ask(method, target, &[HOST]);
        assert_eq!(found("GET", "/api/v2/public/execution?page=1"), Ok(Endpoint::List));
        assert_eq!(found("HEAD", "/api/v2/public/execution"), Ok(Endpoint::List));
        assert_eq!(found("GET", "/api/v2/public/execution/65a"), Ok(Endpoint::Document(id("65a"))));
        assert_eq!(
            found("GET", "/api/v2/public/execution/65a/nodes/n%201/batches"),
            Ok(Endpoint::Batches(id("65a"), id("n%201")))
        );
        assert_eq!(found("POST", "/api/v2/public/execution/65a/stop"), Ok(Endpoint::Action(id("65a"), Action::Stop)));
        assert_eq!(found("POST", "/api/v2/public/execution/65a/rerun"), Ok(Endpoint::Action(id("65a"), Action::Rerun)));
    }

    #[test]
    fn anything_else_is_not_found_and_other_methods_are_not_allowed() {
        for target in [
            "/",
            "/api/v2/public/executions",
            "/api/v2/public/execution/",
            "/api/v2/public/execution//",
            "/api/v2/public/execution/1/nodes/2",
            "/api/v2/public/execution/1/nodes/2/batches/3",
            "/api/v2/public/execution/1/stop/2",
            "/api/v2/public/linked-account",
            "/API/v2/public/execution",
        ] {
            assert_eq!(ask("GET", target, &[HOST]), Err(StatusCode::NOT_FOUND), "{target}");
        }
        assert_eq!(ask("DELETE", "/api/v2/public/execution", &[HOST]), Err(StatusCode::METHOD_NOT_ALLOWED));
        assert_eq!(ask("GET", "/api/v2/public/execution/1/stop", &[HOST]), Err(StatusCode::METHOD_NOT_ALLOWED));
        assert_eq!(ask("BREW", "/api/v2/public/execution", &[HOST]), Err(StatusCode::METHOD_NOT_ALLOWED));
    }

    #[test]
    fn a_path_that_climbs_is_refused() {
        for id in ["..", "%2e%2e", "a%2Fb", "%00", ".", "%2e%2e%2fadmin"] {
            let result = ask("GET", &format!("/api/v2/public/execution/{id}"), &[HOST]);
            assert_eq!(result, Err(StatusCode::BAD_REQUEST), "{id}");
        }
    }

    #[test]
    fn a_head_that_can_be_read_in_two_ways_is_refused() {
        let target = "/api/v2/public/execution";
        assert_eq!(ask("GET", target, &[]), Err(StatusCode::BAD_REQUEST));
        assert_eq!(ask("GET", target, &[HOST, HOST]), Err(StatusCode::BAD_REQUEST));
        assert_eq!(ask("GET", target, &[HOST, ("transfer-encoding", "chunked")]), Err(StatusCode::BAD_REQUEST));
    }

    #[test]
    fn long_targets_and_large_heads_have_their_own_errors() {
        let long = format!("/api/v2/public/execution?slug={}", "a".repeat(100));
        assert_eq!(ask("GET", &long, &[HOST]), Err(StatusCode::URI_TOO_LONG));
        let large = "a".repeat(200);
        let result = ask("GET", "/api/v2/public/execution", &[HOST, ("cookie", &large)]);
        assert_eq!(result, Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }
}
