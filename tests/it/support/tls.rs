//! Certificates, and clients that speak TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use postern::clock::Clock;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{
    CipherSuite, ClientConfig, HandshakeKind, RootCertStore, ServerConfig, SupportedCipherSuite,
    SupportedProtocolVersion,
};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{EXECUTIONS, Failure, Folder, leaks, spawn_upstream};

/// A file of `tests/data`.
pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A clock at whose time the certificates of `tests/data` are valid, and the last second in which they are.
pub(crate) fn clock_of_certificates() -> (Clock, Timestamp) {
    (Clock::manual("2030-01-01T00:00:00Z".parse().expect("a time")), "2126-10-31T23:44:32Z".parse().expect("a time"))
}

/// Puts one of the server certificates of `tests/data` into a folder.
pub(crate) fn install(folder: &Folder, server: &str) {
    for ending in ["key", "pem"] {
        let content = std::fs::read(data(&format!("{server}.{ending}"))).expect("the file is there");
        folder.write(&format!("server.{ending}"), content);
    }
}

/// A folder with a server certificate.
pub(crate) fn folder_with(server: &str) -> Folder {
    let folder = Folder::new();
    install(&folder, server);
    folder
}

/// A client of TLS, which may present a certificate of `tests/data`.
#[derive(Clone)]
pub(crate) struct TlsClient {
    address: SocketAddr,
    connector: TlsConnector,
}

impl TlsClient {
    pub(crate) fn new(address: SocketAddr, certificate: Option<&str>) -> Self {
        Self { address, connector: connector(certificate) }
    }

    /// A client of one version of TLS.
    pub(crate) fn of_version(
        address: SocketAddr,
        certificate: Option<&str>,
        version: &'static SupportedProtocolVersion,
    ) -> Self {
        Self { address, connector: connector_of(certificate, &[version]) }
    }

    /// Requests the executions over a new connection; returns the kind of its handshake.
    pub(crate) async fn handshake_kind(&self) -> Result<HandshakeKind, Failure> {
        let stream = self.connect().await?;
        let kind = stream.get_ref().1.handshake_kind().expect("the handshake is complete");
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        // Tickets of TLS 1.3 come after the handshake, and are read with the response.
        read(sender.send_request(request(&[])?).await?).await?;
        Ok(kind)
    }

    /// Requests the executions over a new connection; returns the status and the server's certificate.
    pub(crate) async fn ask(&self, headers: &[(&str, &str)]) -> Result<(StatusCode, CertificateDer<'static>), Failure> {
        let stream = self.connect().await?;
        let shown = stream.get_ref().1.peer_certificates().expect("a server certificate")[0].clone().into_owned();
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let response = sender.send_request(request(headers)?).await?;
        let status = response.status();
        read(response).await?;
        Ok((status, shown))
    }

    /// [`TlsClient::ask`] where the handshake succeeds.
    pub(crate) async fn status(&self, headers: &[(&str, &str)]) -> StatusCode {
        self.ask(headers).await.expect("an answer").0
    }

    /// Opens a connection that stays open.
    pub(crate) async fn open(&self) -> TlsConnection {
        let stream = self.connect().await.expect("a handshake");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        TlsConnection::Http1(sender)
    }

    /// Opens a connection of HTTP/2 that stays open.
    pub(crate) async fn open_http_2(&self) -> TlsConnection {
        let stream = self.connect().await.expect("a handshake");
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        TlsConnection::Http2(sender)
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, Failure> {
        let stream = TcpStream::connect(self.address).await?;
        Ok(self.connector.connect("localhost".try_into()?, stream).await?)
    }
}

/// An encrypted connection that stays open.
pub(crate) enum TlsConnection {
    Http1(SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl TlsConnection {
    /// Requests the executions; returns the status, and whether the response announces the end of the connection.
    pub(crate) async fn ask(&mut self, headers: &[(&str, &str)]) -> (StatusCode, bool) {
        let mut request = request(headers).expect("a request");
        let response = match self {
            Self::Http1(sender) => sender.send_request(request).await,
            Self::Http2(sender) => {
                request.headers_mut().remove("host");
                *request.uri_mut() = format!("https://localhost{EXECUTIONS}").parse().expect("a URL");
                sender.send_request(request).await
            }
        };
        let response = response.expect("an answer");
        let (status, last) = (response.status(), response.headers().contains_key("connection"));
        read(response).await.expect("a body");
        (status, last)
    }
}

/// Reads a response to its end. It contains no secret.
async fn read(response: Response<Incoming>) -> hyper::Result<()> {
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    leaks::check("a response over TLS", &format!("{:?} {}", head.headers, String::from_utf8_lossy(&body)));
    Ok(())
}

fn request(headers: &[(&str, &str)]) -> http::Result<Request<Full<Bytes>>> {
    let request = Request::get(EXECUTIONS).header("host", "localhost");
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(Full::default())
}

/// Returns the cipher of a connection by a client that lists these, in this order.
pub(crate) async fn cipher_for(address: SocketAddr, listed: &[SupportedCipherSuite]) -> CipherSuite {
    let provider = CryptoProvider { cipher_suites: listed.to_vec(), ..aws_lc_rs::default_provider() };
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_root_certificates(authority())
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.expect("the gateway listens");
    let name = "localhost".try_into().expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake");
    stream.get_ref().1.negotiated_cipher_suite().expect("the handshake is done").suite()
}

/// A server with TLS and the certificate `server-1` in front of one without.
pub(crate) async fn in_front_of(server: SocketAddr) -> SocketAddr {
    let chain = vec![CertificateDer::from_pem_file(data("server-1.pem")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(data("server-1.key")).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)
        .expect("TLS")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("the key belongs to the certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    spawn_upstream(move |listener| async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust the certificate closes.
                let Ok(mut caller) = acceptor.accept(stream).await else { return };
                let mut server = TcpStream::connect(server).await.expect("it listens");
                let _ = copy_bidirectional(&mut caller, &mut server).await;
            });
        }
    })
    .await
}

/// The authority of `tests/data`.
fn authority() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(data("ca.pem")).expect("a certificate")).expect("an authority");
    roots
}

/// A connector that trusts the authority of `tests/data`, and may present a certificate.
pub(crate) fn connector(certificate: Option<&str>) -> TlsConnector {
    connector_of(certificate, rustls::DEFAULT_VERSIONS)
}

fn connector_of(certificate: Option<&str>, versions: &[&'static SupportedProtocolVersion]) -> TlsConnector {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("TLS")
        .with_root_certificates(authority());
    let config: ClientConfig = match certificate {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain = vec![CertificateDer::from_pem_file(data(&format!("{name}.pem"))).expect("a certificate")];
            let key = PrivateKeyDer::from_pem_file(data(&format!("{name}.key"))).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("the key belongs to the certificate")
        }
    };
    TlsConnector::from(Arc::new(config))
}
