//! An HTTP client for one server: verified TLS, no redirects, every exchange bounded in time and size.
//!
//! Each worker has a client of its own for Refold, so a cache miss stays on its thread. JWKS and OTLP use the same client.

mod decompress;
mod error;
mod pool;
mod request_body;
mod response_body;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, HOST};
use http::{HeaderValue, Request, Response, response};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{Instant, timeout_at};

use self::decompress::decompress;
pub use self::error::{BodyError, ClientSetupError, ExchangePhase, TransportError, TransportErrorKind};
use self::pool::Pool;
pub use self::request_body::{RequestBody, buffered, streamed};
pub use self::response_body::ResponseBody;
use crate::config::{CaFile, Connection};
use crate::offload;

/// The byte order mark in UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A client of one server, with a pool of connections. Cheap to clone; clones share the pool.
#[derive(Clone, Debug)]
pub struct Client {
    pool: Pool,
    host: HeaderValue,
    first_byte_timeout: Duration,
    total_timeout: Duration,
    max_body: usize,
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
    ///
    /// # Panics
    /// If the base URL has no authority, which the configuration does not accept.
    pub fn new(config: &Connection) -> Result<Self, ClientSetupError> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(config.connect_timeout));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(config)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let base_url = config.base_url.clone();
        let host = base_url.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        Ok(Self {
            host: host
                .expect("the configuration only accepts a base URL with an authority, whose characters are ASCII"),
            pool: Pool::new(connector, base_url, config.pool_idle_per_worker, config.pool_idle_timeout),
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
        let (head, body) = self.send_within(request, self.max_body, time_left).await?.into_parts();
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
    ) -> Result<Response<Result<Bytes, TransportError>>, TransportError> {
        let (head, body) = self.send_within(request, self.max_body, time_left).await?.into_parts();
        let body = match body.read().await {
            Ok(body) => self.decoded(&head, body).await,
            Err(error) => Err(error),
        };
        Ok(Response::from_parts(head, body))
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

    /// Sends a request and reads the head of the response; the body streams, up to `max_body` bytes.
    ///
    /// # Errors
    /// If there is no valid head within the configured timeouts.
    pub async fn send_streaming(
        &self,
        request: Request<RequestBody>,
        max_body: usize,
    ) -> Result<Response<ResponseBody>, TransportError> {
        self.send_within(request, max_body, self.total_timeout).await
    }

    async fn send_within(
        &self,
        mut request: Request<RequestBody>,
        max_body: usize,
        time_left: Duration,
    ) -> Result<Response<ResponseBody>, TransportError> {
        request.headers_mut().insert(HOST, self.host.clone());
        let start = Instant::now();
        let deadline = start + self.total_timeout.min(time_left);
        let first_byte = deadline.min(start + self.first_byte_timeout);
        let (response, lease) =
            timeout_at(first_byte, self.pool.send(request)).await.map_err(|_| TransportErrorKind::Timeout)??;
        Ok(response.map(|body| ResponseBody::new(body, lease, deadline, max_body)))
    }
}

fn tls(config: &Connection) -> Result<ClientConfig, ClientSetupError> {
    let mut roots = RootCertStore::empty();
    match &config.ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(CaFile { path, .. }) => {
            let unusable = |reason: String| ClientSetupError::CaFile { path: path.clone(), reason };
            let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
                roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(unusable("no certificate in it".to_owned()));
            }
        }
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;
    use crate::config::{Config, Environment};

    fn client(base_url: &str) -> Client {
        let mut environment = Environment::default();
        environment.insert("ORG_KEY", "tk_org");
        let tenant = "[[tenants]]\nid = \"a\"\nmode = \"validate\"\norg_key = { env = \"ORG_KEY\" }\n";
        let text = format!("[upstream]\nbase_url = \"{base_url}\"\n{tenant}");
        let config = Config::parse(&text, Path::new("test.toml"), &environment).expect("it is valid");
        Client::new(&config.upstream.connection()).expect("it needs no file")
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
                TransportErrorKind::InvalidResponse,
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
