//! `postern health`: a health check for containers that have no other program than this one.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::output::CommandError;

/// Timeout of each step: connect, write, read.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longest response that is read, in bytes.
const MAX_RESPONSE: u64 = 8192;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  postern health 127.0.0.1:8080\n  postern health unix:/run/postern/postern.sock\n  postern health --admin 127.0.0.1:9180 --ready"
)]
pub(super) struct HealthArguments {
    /// Address of a listener for callers: a host and a port, or `unix:` and a path.
    #[arg(value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    address: String,
    /// Address of the admin listener, whose /healthz is requested instead.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "address")]
    admin: Option<String>,
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
    match &arguments.admin {
        None => CALLERS.check(&arguments.address),
        Some(admin) if arguments.ready => READINESS.check(admin),
        Some(admin) => LIVENESS.check(admin),
    }
}

impl HealthProbe {
    fn check(&self, address: &str) -> Result<(), CommandError> {
        let response = match address.strip_prefix("unix:") {
            Some(path) => UnixStream::connect(path).and_then(|stream| {
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                self.exchange(stream)
            }),
            None => connect(address).and_then(|stream| {
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                self.exchange(stream)
            }),
        };
        let response = response.map_err(|error| format!("no response from {address}: {error}"))?;
        if response.starts_with(self.status_line) && response.contains(self.content) {
            return Ok(());
        }
        let status = response.lines().next().unwrap_or("nothing");
        Err(format!("{address}{} does not answer as a healthy Postern does: {status}", self.path).into())
    }

    /// Sends the request and reads the beginning of the response.
    fn exchange(&self, mut stream: impl Read + Write) -> io::Result<String> {
        let Self { method, path, .. } = self;
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut response = Vec::new();
        stream.take(MAX_RESPONSE).read_to_end(&mut response)?;
        Ok(String::from_utf8_lossy(&response).into_owned())
    }
}

/// Connects to the first address of a host that accepts.
#[expect(clippy::disallowed_methods, reason = "a command of its own, without a runtime")]
fn connect(host_and_port: &str) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in host_and_port.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = io::Error::new(error.kind(), format!("{address}: {error}")),
        }
    }
    Err(failure)
}
