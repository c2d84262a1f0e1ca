//! `postern health`: a health check for containers that have no other program than this one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::output::CommandError;

/// Timeout of each step: connect, write, read.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longest response that is read, in bytes.
const MAX_RESPONSE: u64 = 8192;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  postern health 127.0.0.1:8080\n  postern health --admin 127.0.0.1:9180 --ready")]
pub(super) struct HealthArguments {
    /// Address of a listener for callers.
    #[arg(value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    address: SocketAddr,
    /// Address of the admin listener, whose /healthz is requested instead.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "address")]
    admin: Option<SocketAddr>,
    /// Check readiness (/readyz of the admin listener) instead of liveness.
    #[arg(long, requires = "admin")]
    ready: bool,
}

/// A request, and the signs of a healthy gateway in the response to it.
struct HealthProbe {
    method: &'static str,
    path: &'static str,
    status_line: &'static str,
    content: &'static str,
}

/// A request without a credential: it costs the gateway little, and other servers do not answer it with `x-request-id`.
const CALLERS: HealthProbe = HealthProbe {
    method: "HEAD",
    path: "/api/v2/public/execution",
    status_line: "HTTP/1.1 401 ",
    content: "x-request-id: ",
};
const LIVENESS: HealthProbe =
    HealthProbe { method: "GET", path: "/healthz", status_line: "HTTP/1.1 200 ", content: "\"status\":\"ok\"" };
const READINESS: HealthProbe =
    HealthProbe { method: "GET", path: "/readyz", status_line: "HTTP/1.1 200 ", content: "\"ready\":true" };

pub(super) fn run(arguments: &HealthArguments) -> Result<(), CommandError> {
    match arguments.admin {
        None => CALLERS.check(arguments.address),
        Some(admin) if arguments.ready => READINESS.check(admin),
        Some(admin) => LIVENESS.check(admin),
    }
}

impl HealthProbe {
    fn check(&self, address: SocketAddr) -> Result<(), CommandError> {
        let Self { method, path, .. } = self;
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)
            .map_err(|error| format!("can't connect to {address}: {error}"))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut response = String::new();
        stream.take(MAX_RESPONSE).read_to_string(&mut response)?;
        if response.starts_with(self.status_line) && response.contains(self.content) {
            Ok(())
        } else {
            Err(format!("{address}{path} does not answer as a healthy Postern does").into())
        }
    }
}
