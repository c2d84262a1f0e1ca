//! `postern health`: a health check for containers that have no other program than this one.

use bytes::Bytes;
use http::{HeaderName, Method, Request, Response, StatusCode};
use serde_json::Value;

use super::exchange::{Address, TlsArguments, exchange};
use super::output::CommandError;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  postern health 127.0.0.1:8080
  postern health unix:/run/postern/postern.sock
  postern health https://127.0.0.1:8443 --server-name postern.example.com --ca-file ca.pem
  postern health --admin 127.0.0.1:9180 --ready")]
pub(super) struct HealthArguments {
    /// Address of a listener for callers: a host and a port, after `https://` for one with TLS, or `unix:` and a path.
    #[arg(value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = Address::parse)]
    address: Address,
    /// Address of the admin listener, whose /healthz is requested instead.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "address", value_parser = Address::parse)]
    admin: Option<Address>,
    /// Check readiness (/readyz of the admin listener) instead of liveness.
    #[arg(long, requires = "admin")]
    ready: bool,
    #[command(flatten)]
    tls: TlsArguments,
}

/// A request, and the sign of a healthy gateway in the response to it.
struct HealthProbe {
    method: Method,
    path: &'static str,
    is_healthy: fn(&Response<Bytes>) -> bool,
}

/// A request without a credential: it costs the gateway little, and other servers do not answer it with `x-request-id`.
const CALLERS: HealthProbe = HealthProbe {
    method: Method::HEAD,
    path: "/api/v2/public/execution",
    is_healthy: |response| {
        response.status() == StatusCode::UNAUTHORIZED && response.headers().contains_key(X_REQUEST_ID)
    },
};
const LIVENESS: HealthProbe = HealthProbe {
    method: Method::GET,
    path: "/healthz",
    is_healthy: |response| says(response, "status", &"ok".into()),
};
const READINESS: HealthProbe =
    HealthProbe { method: Method::GET, path: "/readyz", is_healthy: |response| says(response, "ready", &true.into()) };

fn says(response: &Response<Bytes>, name: &str, value: &Value) -> bool {
    let body: Option<Value> = serde_json::from_slice(response.body()).ok();
    response.status() == StatusCode::OK && body.is_some_and(|body| body[name] == *value)
}

/// Sends one request to the listener.
///
/// # Errors
/// If the response is not that of a healthy gateway, or there is none.
pub(super) fn run(arguments: &HealthArguments) -> Result<(), CommandError> {
    let (probe, address) = match &arguments.admin {
        None => (CALLERS, &arguments.address),
        Some(admin) if arguments.ready => (READINESS, admin),
        Some(admin) => (LIVENESS, admin),
    };
    let HealthProbe { method, path, is_healthy } = probe;
    let mut request = Request::new(Bytes::new());
    *request.method_mut() = method;
    *request.uri_mut() = http::Uri::from_static(path);
    let response = exchange(address, &arguments.tls, request)?;
    if is_healthy(&response) {
        return Ok(());
    }
    Err(format!("{address}{path} does not answer as a healthy Postern does: status {}", response.status()).into())
}
