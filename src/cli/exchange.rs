//! One exchange with a running Postern: over TCP, TLS or a Unix socket, each step within a few seconds.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderValue};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::output::CommandError;
use crate::http_client::client_tls;

/// Timeout of each step: name look-up, connect, TLS, the response.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longest response that is read, in bytes.
const MAX_RESPONSE: usize = 16 << 20;

/// The verification of the server's certificate.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct TlsArguments {
    /// PEM file of authorities to trust instead of the public ones, for `https://`.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Name in the server's certificate, if it is not the host of the address.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
}

/// The address of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// `unix:` and a path.
    Unix(PathBuf),
    /// Host and port, after `http://` or nothing.
    Plain(String),
    /// Host and port after `https://`.
    Tls(String),
}

impl Address {
    /// Reads an address: a host and a port, which may follow `http://` or `https://`, or `unix:` and a path.
    ///
    /// # Errors
    /// If it is none of these.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no address; write a host and a port like \"127.0.0.1:9180\", \"https://host:8443\" or \"unix:/path\""
            )
        };
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(wrong()) } else { Ok(Self::Unix(path.into())) };
        }
        let (secured, rest) = match text.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("http://").unwrap_or(text)),
        };
        let place = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = place.rsplit_once(':').ok_or_else(wrong)?;
        let is_host =
            !host.is_empty() && !host.contains(['/', '@', '?', '#']) && host.contains(':') == host.starts_with('[');
        if !is_host || port.parse::<u16>().is_err() {
            return Err(wrong());
        }
        Ok(if secured { Self::Tls(place.to_owned()) } else { Self::Plain(place.to_owned()) })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Plain(place) => f.write_str(place),
            Self::Tls(place) => write!(f, "https://{place}"),
        }
    }
}

/// Sends a request and reads the whole response.
///
/// # Errors
/// If there is none; the error names the address and the cause.
pub(super) fn exchange(
    address: &Address,
    tls: &TlsArguments,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let response = runtime.block_on(async {
        match address {
            Address::Unix(path) => send(step("connect", UnixStream::connect(path)).await?, request).await,
            Address::Plain(place) => send(connect(place).await?, request).await,
            Address::Tls(place) => {
                let config = client_tls(tls.ca_file.as_deref()).map_err(io::Error::other)?;
                let host = place.rsplit_once(':').map_or(place.as_str(), |(host, _)| host);
                let name = tls.server_name.as_deref().unwrap_or(host.trim_matches(['[', ']'])).to_owned();
                let name = ServerName::try_from(name).map_err(io::Error::other)?;
                let stream = connect(place).await?;
                let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
                send(step("TLS handshake", handshake).await?, request).await
            }
        }
    });
    response.map_err(|error: io::Error| format!("no response from {address}: {error}").into())
}

/// Connects to the first address of a host that accepts.
async fn connect(place: &str) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in step("name look-up", tokio::net::lookup_host(place)).await? {
        match step("connect", TcpStream::connect(address)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = io::Error::new(error.kind(), format!("{address}: {error}")),
        }
    }
    Err(failure)
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    mut request: Request<Bytes>,
) -> io::Result<Response<Bytes>> {
    // The admin listener accepts loopback names only on a loopback address.
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    step("HTTP", async {
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        let response = sender.send_request(request.map(Full::new)).await.map_err(|error| with_cause(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_RESPONSE).collect().await.map_err(io::Error::other)?;
        Ok(Response::from_parts(head, body.to_bytes()))
    })
    .await
}

fn with_cause(error: &hyper::Error) -> io::Error {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    io::Error::other(format!("{error}{cause}"))
}

async fn step<T>(name: &str, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(TIMEOUT, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(io::Error::new(error.kind(), format!("{name}: {error}"))),
        Err(_) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("{name}: not done within {} s", TIMEOUT.as_secs())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port_or_is_a_unix_socket() {
        for (text, expected) in [
            ("127.0.0.1:80", Address::Plain("127.0.0.1:80".to_owned())),
            ("http://localhost:80/", Address::Plain("localhost:80".to_owned())),
            ("https://[::1]:8443", Address::Tls("[::1]:8443".to_owned())),
            ("unix:/run/x.sock", Address::Unix("/run/x.sock".into())),
        ] {
            assert_eq!(Address::parse(text).as_ref(), Ok(&expected), "{text}");
            assert_eq!(Address::parse(&expected.to_string()), Ok(expected), "{text}");
        }
        for text in
            ["", "localhost", ":80", "unix:", "a:b", "a:99999", "::1:80", "http://a:1/path", "u@a:1", "ftp://a:1"]
        {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
