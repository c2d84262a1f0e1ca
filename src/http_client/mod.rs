//! An HTTP client for one server: verified TLS, no redirects, every exchange bounded in time and size.
//!
//! Each worker has a client of its own for Refold, so a cache miss stays on its thread. JWKS and OTLP use the same client.

mod connect;
mod connection;
mod decompress;
mod dial;
mod error;
mod idle;
mod pool;
mod request_body;
mod resend;
mod response_body;
mod stream;
mod suspicion;
mod tunnel;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, HOST};
use http::{HeaderValue, Request, Response, Uri, response};
use hyper::body::Body;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use tokio::time::{Instant, timeout, timeout_at};

use self::connect::{Connector, Resolve, SystemResolver, Tls, Via};
use self::decompress::decompress;
pub(crate) use self::dial::dial;
pub use self::error::{BodyError, ClientSetupError, ConnectStep, ExchangePhase, TransportError, TransportErrorKind};
pub use self::pool::ConnectionChoice;
use self::pool::{Pool, PoolLimits};
pub use self::request_body::{RequestBody, Upload, UploadFailure, buffered, streamed, upload};
use self::resend::NoPermits;
pub use self::resend::ResendPermits;
pub use self::response_body::ResponseBody;
use crate::config::{Connection, masked_path};
use crate::named_file::{self, MAX_FILE};
use crate::offload;
use crate::tls;

/// The byte order mark in UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A client of one server, with a pool of connections. Cheap to clone; clones share the pool.
#[derive(Clone, Debug)]
pub struct Client {
    pool: Pool,
    host: HeaderValue,
    /// Path of the base URL without a slash at its end, below which all targets are.
    path: Arc<str>,
    first_byte_timeout: Duration,
    total_timeout: Duration,
    max_body: usize,
}

/// Bounds of an exchange whose bodies stream.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Largest response body.
    pub max_body: usize,
    /// Longest wait for the head of the response, after the last part of the request was sent.
    pub first_byte_timeout: Duration,
    /// Longest pause of the server in the response.
    pub idle_timeout: Duration,
    /// Longest time for the whole exchange.
    pub total_timeout: Duration,
}

/// A response with its body in memory and decompressed.
///
/// The body may be a slice of the connection's read buffer, and then keeps the whole buffer in memory; copy the body before
/// you store it.
pub type BufferedResponse = Response<Bytes>;

impl Client {
    /// Makes a client with an empty pool.
    ///
    /// # Errors
    /// If the file of certificate authorities can't be used.
    pub fn new(config: &Connection) -> Result<Self, ClientSetupError> {
        Self::with_resolver(config, Arc::new(SystemResolver))
    }

    fn with_resolver(config: &Connection, resolver: Arc<dyn Resolve>) -> Result<Self, ClientSetupError> {
        let limits = PoolLimits {
            idle: config.pool_idle_per_worker,
            idle_timeout: config.pool_idle_timeout,
            max_age: config.max_connection_age,
            suspect_after: config.suspect_after,
        };
        Ok(Self {
            host: host_header(&config.base_url),
            path: config.base_url.path().trim_end_matches('/').into(),
            pool: Pool::new(connector(config, resolver)?, limits),
            first_byte_timeout: config.first_byte_timeout,
            total_timeout: config.total_timeout,
            max_body: config.max_body,
        })
    }

    /// Sends a request and reads the whole response, within `time_left` and the configured timeouts.
    ///
    /// A response without a body (to HEAD, 204, 304, or empty) has no content coding to undo, whatever its headers say. The body
    /// of an error status only explains the status: if it can't be decoded, the response has an empty one.
    ///
    /// # Errors
    /// If there is no complete and valid response within the bounds of time and size.
    pub async fn send(
        &self,
        request: Request<RequestBody>,
        time_left: Duration,
    ) -> Result<BufferedResponse, TransportError> {
        self.send_buffered(request, time_left, ConnectionChoice::Idle, None::<&NoPermits>).await
    }

    /// Sends a request like [`Client::send`], first on the chosen connection; a GET is sent again, with a permit, if its connection
    /// turns out to be dead.
    ///
    /// # Errors
    /// If there is no complete and valid response within the bounds of time and size.
    pub async fn send_with_permits<P: ResendPermits>(
        &self,
        request: Request<RequestBody>,
        time_left: Duration,
        connection: ConnectionChoice,
        permits: &P,
    ) -> Result<BufferedResponse, TransportError> {
        self.send_buffered(request, time_left, connection, Some(permits)).await
    }

    async fn send_buffered<P: ResendPermits>(
        &self,
        request: Request<RequestBody>,
        time_left: Duration,
        connection: ConnectionChoice,
        permits: Option<&P>,
    ) -> Result<BufferedResponse, TransportError> {
        let (head, body) = self.send_within(request, time_left, connection, permits).await?.into_parts();
        let body = body.read().await?;
        let body = match self.decoded(&head, body).await {
            Err(_) if head.status.is_client_error() || head.status.is_server_error() => Bytes::new(),
            decoded => decoded?,
        };
        Ok(Response::from_parts(head, body))
    }

    /// Sends a request that is not sent again, whose status matters more than its body: a body that is incomplete, too large or
    /// can't be decoded is an error beside the head.
    ///
    /// # Errors
    /// If there is no valid head within the bounds of time.
    pub async fn send_once(
        &self,
        request: Request<RequestBody>,
        time_left: Duration,
        connection: ConnectionChoice,
    ) -> Result<Response<Result<Bytes, TransportError>>, TransportError> {
        let response = self.send_within(request, time_left, connection, None::<&NoPermits>).await?;
        let (head, body) = response.into_parts();
        let body = match body.read().await {
            Ok(body) => self.decoded(&head, body).await,
            Err(error) => Err(error),
        };
        Ok(Response::from_parts(head, body))
    }

    /// Reads the body of a streamed response that only explains the status. It is empty if it takes longer than `time`, is incomplete
    /// or too large, or can't be decoded.
    pub async fn read_explanation(&self, head: &response::Parts, body: ResponseBody, time: Duration) -> Bytes {
        let explanation = async { self.decoded(head, body.read().await?).await };
        timeout(time, explanation).await.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Undoes the content coding of a body, if there is a body, and leaves out a byte order mark before it: the servers of this
    /// client send JSON, which has none (RFC 8259, 8.1).
    async fn decoded(&self, head: &response::Parts, body: Bytes) -> Result<Bytes, TransportError> {
        let body = match head.headers.get(CONTENT_ENCODING) {
            Some(coding) if !body.is_empty() => {
                let (coding, limit) = (coding.clone(), self.max_body);
                // Also a small body: it may become a large one.
                offload::run(move || decompress(coding.as_bytes(), &body, limit)).await?
            }
            _ => body,
        };
        Ok(if body.starts_with(BYTE_ORDER_MARK) { body.slice(BYTE_ORDER_MARK.len()..) } else { body })
    }

    /// Sends a request and reads the head of the response; both bodies stream, within `limits`. A GET without a body is sent again,
    /// with a permit, if its connection turns out to be dead.
    ///
    /// # Errors
    /// If there is no valid head within the limits.
    pub async fn send_streaming<P: ResendPermits>(
        &self,
        mut request: Request<RequestBody>,
        limits: StreamLimits,
        permits: &P,
    ) -> Result<Response<ResponseBody>, TransportError> {
        self.address(&mut request)?;
        let upload = upload(request.body());
        let start = Instant::now();
        let deadline = start + limits.total_timeout;
        let permits = request.body().is_end_stream().then_some(permits);
        let mut sending = Box::pin(self.pool.send(request, ConnectionChoice::Idle, permits));
        let (response, lease) = loop {
            // The time for the first byte begins anew with each part of the request.
            let moved = || upload.as_ref().map_or(start, |upload| upload.moved());
            let first_byte = deadline.min(moved() + limits.first_byte_timeout);
            match timeout_at(first_byte, &mut sending).await {
                Ok(sent) => break sent?,
                Err(_) if deadline.min(moved() + limits.first_byte_timeout) > first_byte => {}
                Err(_) => return Err(TransportErrorKind::Timeout.into()),
            }
        };
        Ok(response.map(|body| {
            ResponseBody::new(body, lease, deadline, limits.max_body).with_idle_timeout(limits.idle_timeout)
        }))
    }

    /// Addresses a request to the server: its `Host`, and its target below the path of the base URL.
    fn address(&self, request: &mut Request<RequestBody>) -> Result<(), TransportError> {
        request.headers_mut().insert(HOST, self.host.clone());
        if !self.path.is_empty() {
            *request.uri_mut() = target_below(&self.path, request.uri())?;
        }
        Ok(())
    }

    async fn send_within<P: ResendPermits>(
        &self,
        mut request: Request<RequestBody>,
        time_left: Duration,
        connection: ConnectionChoice,
        permits: Option<&P>,
    ) -> Result<Response<ResponseBody>, TransportError> {
        self.address(&mut request)?;
        let start = Instant::now();
        let deadline = start + self.total_timeout.min(time_left);
        let first_byte = deadline.min(start + self.first_byte_timeout);
        let (response, lease) = timeout_at(first_byte, self.pool.send(request, connection, permits))
            .await
            .map_err(|_| TransportErrorKind::Timeout)??;
        Ok(response.map(|body| ResponseBody::new(body, lease, deadline, self.max_body)))
    }
}

/// The `Host` of requests to a base URL: its authority without a user name and password.
fn host_header(base_url: &Uri) -> HeaderValue {
    let authority = base_url.authority().map_or("", |authority| authority.as_str());
    let host = authority.rsplit('@').next().unwrap_or_default();
    HeaderValue::from_str(host).expect("the characters of an authority are visible ASCII")
}

fn connector(config: &Connection, resolver: Arc<dyn Resolve>) -> Result<Connector, ClientSetupError> {
    let tls = Arc::new(client_tls(config.ca_file.as_ref().map(|file| file.path.as_path()))?);
    let (host, port, secured) = endpoint(&config.base_url, &tls);
    let proxy = config.proxy.as_ref().map(|proxy| {
        let (proxy_host, proxy_port, secured) = endpoint(&proxy.url, &tls);
        let target = format!("{}:{port}", config.base_url.host().unwrap_or_default()).into();
        let authorization = proxy.authorization.clone();
        Via { host: proxy_host, port: proxy_port, tls: secured, authorization, target }
    });
    Ok(Connector { resolver, host, port, tls: secured, proxy, timeout: config.connect_timeout })
}

/// Returns the host, the port and, for https, the TLS of a URL.
fn endpoint(url: &Uri, tls: &Arc<ClientConfig>) -> (Box<str>, u16, Option<Tls>) {
    let is_tls = url.scheme_str() == Some("https");
    // A URL has brackets around an IPv6 address, and neither a resolver nor a certificate has.
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let name = || ServerName::try_from(host.to_owned()).expect("the configuration checks the host of a URL");
    let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    (host.into(), port, is_tls.then(|| (Arc::clone(tls), name())))
}

/// Returns a request target below the path of the base URL.
fn target_below(path: &str, target: &Uri) -> Result<Uri, TransportError> {
    let target = format!("{path}{target}").parse();
    target.map_err(|error: http::uri::InvalidUri| TransportError::caused_by(TransportErrorKind::Unreachable, &error))
}

/// TLS that trusts the authorities in a PEM file, or the public ones.
///
/// # Errors
/// If the file can't be used.
pub fn client_tls(ca_file: Option<&Path>) -> Result<ClientConfig, ClientSetupError> {
    let roots = match ca_file {
        None => webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(),
        Some(path) => {
            let unusable = |reason: String| ClientSetupError::CaFile { path: masked_path(path), reason };
            let pem = named_file::read(path, MAX_FILE).map_err(|error| unusable(error.to_string()))?;
            tls::authorities(&pem).map_err(unusable)?
        }
    };
    Ok(ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket};

    use super::connect::Addresses;
    use super::*;
    use crate::config::{Config, Environment};

    fn client_config(base_url: &str) -> Connection {
        let mut environment = Environment::default();
        environment.insert("ORG_KEY", "tk_org");
        let tenant = "[[tenants]]\nid = \"a\"\nmode = \"validate\"\norg_key = { env = \"ORG_KEY\" }\n";
        let text = format!("[upstream]\nbase_url = \"{base_url}\"\n{tenant}");
        let config = Config::parse(&text, Path::new("test.toml"), &environment).expect("it is valid");
        config.upstream.connection()
    }

    fn client(base_url: &str) -> Client {
        Client::new(&client_config(base_url)).expect("it needs no file")
    }

    /// A name that moves from address to address, one each time it is looked up.
    #[derive(Debug)]
    struct MovingName(Vec<SocketAddr>, AtomicUsize);

    impl Resolve for MovingName {
        fn resolve<'a>(&'a self, _: &'a str, _: u16) -> Addresses<'a> {
            let next = self.0[self.1.fetch_add(1, Ordering::Relaxed) % self.0.len()];
            Box::pin(async move { Ok(vec![next]) })
        }
    }

    #[tokio::test]
    async fn a_name_is_looked_up_for_each_connection() {
        let mut addresses = Vec::new();
        for name in ["a", "b", "c"] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            addresses.push(listener.local_addr().expect("it is bound"));
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    // A 503, so that the connection is not used again.
                    let response = format!("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 1\r\n\r\n{name}");
                    let _ = stream.read(&mut [0; 4096]).await;
                    let _ = stream.write_all(response.as_bytes()).await;
                }
            });
        }
        let config = client_config("http://refold.example");
        let name = MovingName(addresses, AtomicUsize::new(0));
        let client = Client::with_resolver(&config, Arc::new(name)).expect("it needs no file");
        for expected in ["a", "b", "c", "a"] {
            let response = client.send(Request::new(buffered(Bytes::new())), Duration::MAX).await.expect("a response");
            assert_eq!(response.body(), expected);
        }
    }

    async fn error_of(base_url: &str) -> (TransportErrorKind, String) {
        let request = Request::new(buffered(Bytes::new()));
        let error = client(base_url).send(request, Duration::MAX).await.expect_err("no response");
        (error.kind(), error.to_string())
    }

    #[tokio::test]
    async fn an_error_names_its_cause() {
        // Bound, so that no other process listens there, but not listening.
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let (kind, text) = error_of(&format!("http://{}", socket.local_addr().expect("it is bound"))).await;
        assert_eq!(kind, TransportErrorKind::Unreachable);
        assert_eq!(text.matches("Connection refused").count(), 1, "{text}");
        for (scheme, response, kind, cause) in [
            ("http", "", TransportErrorKind::Unreachable, "connection closed before message completed"),
            ("http", "SSH-2.0-OpenSSH\r\n\r\n", TransportErrorKind::InvalidResponse, "invalid HTTP version"),
            (
                "http",
                "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{",
                TransportErrorKind::Incomplete,
                "end of file before message length reached",
            ),
            (
                "http",
                "HTTP/1.1 200 OK\r\ncontent-encoding: compress\r\ncontent-length: 1\r\n\r\n{",
                TransportErrorKind::InvalidResponse,
                "unsupported content-encoding \"compress\"",
            ),
            ("https", "this is no TLS", TransportErrorKind::Unreachable, "InvalidContentType"),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let base_url = format!("{scheme}://{}", listener.local_addr().expect("it is bound"));
            let serve = async {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let _ = stream.read(&mut [0; 4096]).await;
                stream.write_all(response.as_bytes()).await.expect("it is read");
            };
            let ((), (actual, text)) = tokio::join!(serve, error_of(&base_url));
            assert_eq!(actual, kind, "{text}");
            assert!(text.contains(cause), "{text}");
        }
    }
}
