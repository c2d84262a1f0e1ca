//! Routes a request by method and path to an endpoint, and rejects requests that no later step should see.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderName, Method, Version};

use super::authority::HostAndPort;
use crate::config::{self, PassThrough, Scope};
use crate::error::{ClientError, Reason};
use crate::executions::{COLLECTION, PathId};

/// An endpoint whose requests need an identified caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `GET /api/v2/public/execution`
    List,
    /// `GET /api/v2/public/execution/{execution_id}`
    Execution(PathId),
    /// `GET /api/v2/public/execution/{execution_id}/nodes/{node_id}/batches`
    Batches(PathId, PathId),
    /// `POST /api/v2/public/execution/{id}/stop` or `.../rerun`
    Action(PathId, Action),
    /// A resource of the rest of the API, by the entry of the allow-list that permits it.
    PassThrough(Arc<PassThrough>),
}

/// The destination of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// An endpoint.
    Endpoint(Endpoint),
    /// `POST /hooks/refold/{tenant}`: a webhook delivery from Refold for the tenant with this id.
    Webhook(Box<str>),
    /// `OPTIONS` on a resource, as browsers send it for CORS.
    Preflight(Permitted),
}

/// The requests that a resource permits, for CORS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permitted {
    /// The methods, as a list for a header.
    pub methods: Cow<'static, str>,
    /// The request headers that are forwarded beside those of every resource.
    pub request_headers: Vec<HeaderName>,
}

impl Permitted {
    fn methods(methods: &'static str) -> Self {
        Self { methods: methods.into(), request_headers: Vec::new() }
    }
}

/// The kind of a request's resource, for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// A page of executions.
    List,
    /// One execution.
    Execution,
    /// A page of batches.
    Batches,
    /// Stops an execution.
    Stop,
    /// Runs an execution again.
    Rerun,
    /// The rest of the API.
    PassThrough,
    /// A webhook delivery.
    Webhook,
    /// A CORS preflight, or a resource that does not exist.
    Other,
}

impl Resource {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::List,
        Self::Execution,
        Self::Batches,
        Self::Stop,
        Self::Rerun,
        Self::PassThrough,
        Self::Webhook,
        Self::Other,
    ];

    /// The name in logs and metric labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Execution => "document",
            Self::Batches => "batches",
            Self::Stop => "stop",
            Self::Rerun => "rerun",
            Self::PassThrough => "pass_through",
            Self::Webhook => "webhook",
            Self::Other => "other",
        }
    }

    /// The path template, if all resources of the kind share one.
    #[must_use]
    pub fn route(self) -> Option<&'static str> {
        match self {
            Self::List => Some("/api/v2/public/execution"),
            Self::Execution => Some("/api/v2/public/execution/{execution_id}"),
            Self::Batches => Some("/api/v2/public/execution/{execution_id}/nodes/{node_id}/batches"),
            Self::Stop => Some("/api/v2/public/execution/{execution_id}/stop"),
            Self::Rerun => Some("/api/v2/public/execution/{execution_id}/rerun"),
            Self::Webhook => Some("/hooks/refold/{tenant}"),
            Self::PassThrough | Self::Other => None,
        }
    }
}

impl Route {
    /// The kind of the resource that the route leads to.
    #[must_use]
    pub fn resource(&self) -> Resource {
        match self {
            Self::Endpoint(Endpoint::List) => Resource::List,
            Self::Endpoint(Endpoint::Execution(_)) => Resource::Execution,
            Self::Endpoint(Endpoint::Batches(..)) => Resource::Batches,
            Self::Endpoint(Endpoint::Action(_, Action::Stop)) => Resource::Stop,
            Self::Endpoint(Endpoint::Action(_, Action::Rerun)) => Resource::Rerun,
            Self::Endpoint(Endpoint::PassThrough(_)) => Resource::PassThrough,
            Self::Webhook(_) => Resource::Webhook,
            Self::Preflight(_) => Resource::Other,
        }
    }
}

/// An action on an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Stops an execution.
    Stop,
    /// Runs an execution again.
    Rerun,
}

impl Action {
    /// The last segment of the action's path.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Rerun => "rerun",
        }
    }
}

/// Path prefix of Refold's webhook deliveries.
const WEBHOOKS: &str = "/hooks/refold/";
/// Most header fields of a request, each of which takes memory of its own however short it is. hyper bounds those of HTTP/1.1, and
/// HTTP/2 has a field for each cookie.
const MAX_FIELDS: usize = 256;
const READ_METHODS: &str = "GET, HEAD";
const WRITE_METHODS: &str = "POST";

/// Routes a request. `pass_through` is the allow-list for the rest of the API.
///
/// # Errors
/// 431 or 414 for a head beyond the limits, 400 for one that HTTP forbids or that servers could read differently, 404, 405.
pub fn route(
    head: &Parts,
    limits: &config::ServerConfig,
    pass_through: &[Arc<PassThrough>],
) -> Result<Route, ClientError> {
    check_head(head, limits)?;
    match own_resource(head) {
        Some(route) => route,
        None => passed_through(head, pass_through),
    }
}

/// Routes to the resources that the gateway serves itself; `None` if the path is not that of such a resource.
fn own_resource(head: &Parts) -> Option<Result<Route, ClientError>> {
    let path = head.uri.path();
    if let Some(tenant) = path.strip_prefix(WEBHOOKS) {
        return (!tenant.contains('/')).then(|| write(&head.method, || Ok(Route::Webhook(tenant.into()))));
    }
    let rest = path.strip_prefix(COLLECTION)?;
    if rest.is_empty() {
        return Some(read(&head.method, || Ok(Endpoint::List)));
    }
    let mut segments = rest.strip_prefix('/')?.split('/');
    let id = |segment: Option<&str>| PathId::parse(segment.unwrap_or_default()).map_err(ClientError::from);
    Some(match (segments.next(), segments.next(), segments.next(), segments.next(), segments.next()) {
        (Some(execution), None, ..) if !execution.is_empty() => {
            read(&head.method, || Ok(Endpoint::Execution(id(Some(execution))?)))
        }
        (execution, Some("stop"), None, ..) => {
            write(&head.method, || Ok(Route::Endpoint(Endpoint::Action(id(execution)?, Action::Stop))))
        }
        (execution, Some("rerun"), None, ..) => {
            write(&head.method, || Ok(Route::Endpoint(Endpoint::Action(id(execution)?, Action::Rerun))))
        }
        (execution, Some("nodes"), node, Some("batches"), None) => {
            read(&head.method, || Ok(Endpoint::Batches(id(execution)?, id(node)?)))
        }
        _ => return None,
    })
}

/// Routes to the rest of the API, as far as the allow-list permits.
fn passed_through(head: &Parts, allow_list: &[Arc<PassThrough>]) -> Result<Route, ClientError> {
    let path = head.uri.path();
    let matching = || allow_list.iter().filter(|allowed| allowed.path.matches(path));
    if matching().next().is_none() {
        return Err(not_found());
    }
    // Rejects paths that the upstream could read differently.
    let segments: Vec<PathId> = path.split('/').skip(1).map(PathId::parse).collect::<Result<_, _>>()?;
    let permits =
        |allowed: &PassThrough, method: &Method| allowed.permits(method, &segments.iter().map(PathId::as_str));
    let permitted = matching().filter(|allowed| permits(allowed, &head.method));
    // The entry that asks less of the caller.
    if let Some(allowed) = permitted.min_by_key(|allowed| allowed.scope == Scope::Org) {
        return Ok(Route::Endpoint(Endpoint::PassThrough(Arc::clone(allowed))));
    }
    let methods = matching().flat_map(|allowed| allowed.methods.iter().map(move |method| (allowed, method)));
    let methods: Vec<&str> =
        methods.filter(|(allowed, method)| permits(allowed, method)).map(|(_, method)| method.as_str()).collect();
    if methods.is_empty() {
        return Err(not_found());
    }
    let methods = methods.join(", ");
    if head.method == Method::OPTIONS {
        let mut request_headers: Vec<HeaderName> = Vec::new();
        for name in matching().flat_map(|allowed| &allowed.request_headers) {
            if !request_headers.contains(name) {
                request_headers.push(name.clone());
            }
        }
        Ok(Route::Preflight(Permitted { methods: methods.into(), request_headers }))
    } else {
        Err(ClientError::method_not_allowed(methods))
    }
}

fn not_found() -> ClientError {
    ClientError::new(Reason::NotFound, "there is no such resource here")
}

fn read(method: &Method, endpoint: impl FnOnce() -> Result<Endpoint, ClientError>) -> Result<Route, ClientError> {
    if *method == Method::GET || *method == Method::HEAD {
        endpoint().map(Route::Endpoint)
    } else if *method == Method::OPTIONS {
        Ok(Route::Preflight(Permitted::methods(READ_METHODS)))
    } else {
        Err(ClientError::method_not_allowed(READ_METHODS))
    }
}

fn write(method: &Method, route: impl FnOnce() -> Result<Route, ClientError>) -> Result<Route, ClientError> {
    if *method == Method::POST {
        route()
    } else if *method == Method::OPTIONS {
        Ok(Route::Preflight(Permitted::methods(WRITE_METHODS)))
    } else {
        Err(ClientError::method_not_allowed(WRITE_METHODS))
    }
}

/// In a request's extensions: its head has a `Content-Length` beside its `Transfer-Encoding`. hyper removes it from the fields.
#[derive(Clone, Copy, Debug)]
pub struct RemovedContentLength;

/// Checks the request head. hyper accepts some heads that RFC 9112 requires a server to reject. hyper's size limits are
/// larger than the gateway's, so the gateway answers an oversized head itself, with the documented error body.
fn check_head(head: &Parts, limits: &config::ServerConfig) -> Result<(), ClientError> {
    let malformed = |message| Err(ClientError::new(Reason::MalformedRequest, message));
    let uri_length = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if uri_length > limits.max_uri_length.as_usize() {
        let message = format!("the request target is longer than {} bytes", limits.max_uri_length.bytes());
        return Err(ClientError::new(Reason::UriTooLong, message));
    }
    let fields = head.headers.len();
    let (mut bytes, mut hosts, mut has_transfer_encoding) = (4 * fields, 0, false);
    let mut names_a_host = head.uri.authority().is_none_or(|authority| is_host(authority.as_str().as_bytes()));
    for (name, value) in &head.headers {
        bytes += name.as_str().len() + value.len();
        if *name == HOST {
            hosts += 1;
            names_a_host &= is_host(value.as_bytes());
        }
        has_transfer_encoding |= *name == TRANSFER_ENCODING;
    }
    if bytes > limits.max_header_size.as_usize() || fields > MAX_FIELDS {
        return Err(headers_too_large(fields, limits));
    }
    match hosts {
        0 if head.version == Version::HTTP_11 => return malformed("the Host header is missing"),
        0 | 1 => {}
        _ => return malformed("the Host header is there twice"),
    }
    if !names_a_host {
        return malformed("the host is no name or address with an optional port");
    }
    // Proxies send GET and HEAD with a Transfer-Encoding and no content. Only an attempt at request smuggling sends a
    // Content-Length too; for other methods hyper ignores it, and closes the connection afterwards (RFC 9112, 6.3).
    let reads = head.method == Method::GET || head.method == Method::HEAD;
    if reads && has_transfer_encoding && head.extensions.get::<RemovedContentLength>().is_some() {
        return malformed("the request has both a Content-Length and a Transfer-Encoding");
    }
    Ok(())
}

#[cold]
fn headers_too_large(fields: usize, limits: &config::ServerConfig) -> ClientError {
    let message = if fields > MAX_FIELDS {
        format!("the request has more than {MAX_FIELDS} header fields")
    } else {
        format!("the request headers are larger than {} bytes", limits.max_header_size.bytes())
    };
    ClientError::new(Reason::HeadersTooLarge, message)
}

/// Returns whether a `Host` or an authority has the form that HTTP gives it (RFC 9112, 3.2).
fn is_host(value: &[u8]) -> bool {
    HostAndPort::parse(value).is_some()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{Request, StatusCode};

    use super::*;

    const LIMITS: config::ServerConfig = config::ServerConfig {
        max_connections: std::num::NonZeroU32::MIN,
        max_unidentified_memory: config::ByteSize::from_bytes(1 << 20),
        trusted_proxies: Vec::new(),
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
            Ok(Route::Endpoint(endpoint)) => Ok(endpoint),
            Ok(other) => panic!("{other:?} is no endpoint"),
            Err(error) => Err(error.status()),
        }
    }

    const HOST: (&str, &str) = ("host", "localhost");

    #[test]
    fn each_documented_route_is_found() {
        let id = |text| PathId::parse(text).expect("a plain id");
        let found = |method, target| ask(method, target, &[HOST]);
        assert_eq!(found("GET", "/api/v2/public/execution?page=1"), Ok(Endpoint::List));
        assert_eq!(found("HEAD", "/api/v2/public/execution"), Ok(Endpoint::List));
        assert_eq!(found("GET", "/api/v2/public/execution/65a"), Ok(Endpoint::Execution(id("65a"))));
        assert_eq!(
            found("GET", "/api/v2/public/execution/65a/nodes/n%201/batches"),
            Ok(Endpoint::Batches(id("65a"), id("n%201")))
        );
        assert_eq!(found("POST", "/api/v2/public/execution/65a/stop"), Ok(Endpoint::Action(id("65a"), Action::Stop)));
        assert_eq!(found("POST", "/api/v2/public/execution/65a/rerun"), Ok(Endpoint::Action(id("65a"), Action::Rerun)));
    }

    #[test]
    fn other_paths_are_404_and_other_methods_405() {
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
    fn a_path_traversal_is_rejected() {
        for id in ["..", "%2e%2e", "a%2Fb", "%00", ".", "%2e%2e%2fadmin"] {
            let result = ask("GET", &format!("/api/v2/public/execution/{id}"), &[HOST]);
            assert_eq!(result, Err(StatusCode::BAD_REQUEST), "{id}");
        }
    }

    #[test]
    fn an_ambiguous_head_is_rejected() {
        let target = "/api/v2/public/execution";
        assert_eq!(ask("GET", target, &[]), Err(StatusCode::BAD_REQUEST));
        assert_eq!(ask("GET", target, &[HOST, HOST]), Err(StatusCode::BAD_REQUEST));
        assert_eq!(ask("GET", target, &[HOST, ("transfer-encoding", "chunked")]), Ok(Endpoint::List));
    }

    #[test]
    fn a_host_that_is_no_host_is_rejected() {
        let target = "/api/v2/public/execution";
        for host in ["gw/../x", "gw/", "user@gw", "gw:80a", "gw?query", "gw gw", "[::1", "a\\b"] {
            assert_eq!(ask("GET", target, &[("host", host)]), Err(StatusCode::BAD_REQUEST), "{host}");
            // The routes that no caller has to be known for, too.
            assert_eq!(ask("POST", "/hooks/refold/t", &[("host", host)]), Err(StatusCode::BAD_REQUEST), "{host}");
        }
        for host in ["gw", "gw:8080", "[::1]:80", "10.0.0.1", "", "a_b.example"] {
            assert_eq!(ask("GET", target, &[("host", host)]), Ok(Endpoint::List), "{host}");
        }
        assert_eq!(ask("GET", &format!("http://user@gw{target}"), &[HOST]), Err(StatusCode::BAD_REQUEST));
        assert_eq!(ask("GET", &format!("http://gw:80{target}"), &[HOST]), Ok(Endpoint::List));
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
