//! An HTTP client for one server: verified TLS, no redirect followed, every exchange bounded in time and bytes. Each worker
//! has one of its own for Refold, so a miss never leaves its thread either.

mod body;
mod decompress;
mod pool;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, HOST};
use http::{HeaderMap, HeaderValue, Request, StatusCode, response};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{Instant, timeout_at};

pub use self::body::{Arriving, BodyError, Outgoing, whole};
use self::decompress::expand;
use self::pool::Pool;
use crate::config::{CaFile, Connection};

/// A way to one server, with connections kept for the next request. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    pool: Pool,
    host: HeaderValue,
    first_byte_timeout: Duration,
    total_timeout: Duration,
    max_body: usize,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers; none of them is passed on as it is.
    pub headers: HeaderMap,
    /// Its body, not encoded. It may be a part of the connection's read buffer, so whoever keeps it copies it.
    pub body: Bytes,
}

/// Why there is no answer. Says nothing of addresses or names: a caller reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection, or it was lost before the answer began.
    #[error("it can't be reached")]
    Unreachable,
    /// The answer took too long.
    #[error("it did not answer in time")]
    Timeout,
    /// The answer is larger than is read.
    #[error("its answer is larger than {limit} bytes")]
    TooLarge {
        /// Most bytes that are read.
        limit: usize,
    },
    /// The answer is not HTTP, or ended early, or has an encoding that was not asked for.
    #[error("its answer is broken")]
    Broken,
}

/// Why the client can't be built.
#[derive(Debug, thiserror::Error)]
pub enum ClientSetupError {
    /// The file of certificate authorities can't be used.
    #[error("ca_file {}: {reason}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS can't be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl Client {
    /// A client with an empty pool.
    ///
    /// # Errors
    /// If the file of certificate authorities can't be used.
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
        let origin = config.base_url.clone();
        // The configuration has made sure of an authority.
        let host = origin.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        Ok(Self {
            host: host.unwrap_or(HeaderValue::from_static("")),
            pool: Pool::new(connector, origin, config.pool_idle_per_worker, config.pool_idle_timeout),
            first_byte_timeout: config.first_byte_timeout,
            total_timeout: config.total_timeout,
            max_body: config.max_body,
        })
    }

    /// Sends a request and reads its answer whole, in no more time than is left.
    ///
    /// # Errors
    /// If there is none within the bounds of time and size.
    pub async fn send(&self, request: Request<Outgoing>, left: Duration) -> Result<Reply, TransportError> {
        let (head, body) = self.begin_within(request, self.max_body, left).await?;
        let body = body.read().await?;
        let body = match head.headers.get(CONTENT_ENCODING) {
            Some(coding) if coding != "identity" => expand(coding.as_bytes(), &body, self.max_body)?,
            _ => body,
        };
        Ok(Reply { status: head.status, headers: head.headers, body })
    }

    /// Sends a request and reads the head of its answer; of the body at most `limit` bytes are read.
    ///
    /// # Errors
    /// If there is none within the bounds of time.
    pub async fn begin(
        &self,
        request: Request<Outgoing>,
        limit: usize,
    ) -> Result<(response::Parts, Arriving), TransportError> {
        self.begin_within(request, limit, self.total_timeout).await
    }

    async fn begin_within(
        &self,
        mut request: Request<Outgoing>,
        limit: usize,
        left: Duration,
    ) -> Result<(response::Parts, Arriving), TransportError> {
        request.headers_mut().insert(HOST, self.host.clone());
        let begun = Instant::now();
        let deadline = begun + self.total_timeout.min(left);
        let first_byte = deadline.min(begun + self.first_byte_timeout);
        let (response, lease) =
            timeout_at(first_byte, self.pool.send(request)).await.map_err(|_| TransportError::Timeout)??;
        let (head, body) = response.into_parts();
        Ok((head, Arriving::new(body, lease, deadline, limit)))
    }
}

fn tls(config: &Connection) -> Result<ClientConfig, ClientSetupError> {
    let mut roots = RootCertStore::empty();
    match &config.ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(CaFile { path, .. }) => {
            let refused = |reason: String| ClientSetupError::CaFile { path: path.clone(), reason };
            let certificates = CertificateDer::pem_file_iter(path).map_err(|error| refused(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| refused(error.to_string()))?;
                roots.add(certificate).map_err(|error| refused(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(refused("no certificate in it".to_owned()));
            }
        }
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
