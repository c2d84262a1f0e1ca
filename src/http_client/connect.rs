//! Opens connections to one server: name look-up, TCP to any of its addresses, a tunnel through a proxy if
//! there is one, TLS. One time limit covers all of it.
//!
//! The name is looked up for each connection, so the addresses are never older than the connection.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::dial::dial;
use super::error::{ConnectStep, TransportError, TransportErrorKind};
use super::tunnel::open_tunnel;
use crate::log_events;

/// Bytes to and from a server, inside TLS if there is any.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// The addresses of a host, once they are looked up.
pub(super) type Addresses<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// Looks up the addresses of a host.
pub(super) trait Resolve: fmt::Debug + Send + Sync {
    /// Returns the addresses in the order in which they are tried.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Addresses<'a>;
}

/// The resolver of the operating system.
#[derive(Debug)]
pub(super) struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Addresses<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// Opens connections to one server.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) host: Box<str>,
    pub(super) port: u16,
    pub(super) tls: Option<Tls>,
    /// The proxy through which the server is reached.
    pub(super) proxy: Option<Via>,
    /// Limit for all steps together.
    pub(super) timeout: Duration,
}

/// TLS settings and the name to verify.
pub(super) type Tls = (Arc<ClientConfig>, ServerName<'static>);

/// A proxy that opens tunnels to servers.
#[derive(Debug)]
pub(super) struct Via {
    pub(super) host: Box<str>,
    pub(super) port: u16,
    pub(super) tls: Option<Tls>,
    pub(super) authorization: Option<HeaderValue>,
    /// Host and port of the server, as CONNECT names them.
    pub(super) target: Box<str>,
}

/// The step that failed, and why.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
struct ConnectError {
    step: ConnectStep,
    source: io::Error,
}

impl Connector {
    /// Opens a connection.
    ///
    /// # Errors
    /// If a step fails, or all of them together take longer than the limit.
    pub(super) async fn connect(&self) -> Result<Box<dyn Io>, TransportError> {
        self.open().await.map_err(|error| {
            let error = TransportError::caused_by(TransportErrorKind::Unreachable, &error).while_connecting(error.step);
            tracing::warn!(%error, message = log_events::CONNECT_FAILED);
            error
        })
    }

    async fn open(&self) -> Result<Box<dyn Io>, ConnectError> {
        let deadline = Instant::now() + self.timeout;
        let Some(via) = &self.proxy else {
            let tcp = self.dial(deadline, &self.host, self.port).await?;
            return self.secure(deadline, ConnectStep::Tls, self.tls.as_ref(), Box::new(tcp)).await;
        };
        let tcp = self.dial(deadline, &via.host, via.port).await?;
        let mut stream = self.secure(deadline, ConnectStep::ProxyTls, via.tls.as_ref(), Box::new(tcp)).await?;
        let tunnel = open_tunnel(&mut stream, &via.target, via.authorization.as_ref());
        self.step(deadline, ConnectStep::Tunnel, tunnel).await?;
        self.secure(deadline, ConnectStep::Tls, self.tls.as_ref(), stream).await
    }

    async fn dial(&self, deadline: Instant, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let addresses = self.step(deadline, ConnectStep::LookUp, self.resolver.resolve(host, port)).await?;
        let tcp = self.step(deadline, ConnectStep::Tcp, dial(addresses, TcpStream::connect)).await?;
        tcp.set_nodelay(true).map_err(|source| ConnectError { step: ConnectStep::Tcp, source })?;
        Ok(tcp)
    }

    async fn secure(
        &self,
        deadline: Instant,
        step: ConnectStep,
        tls: Option<&Tls>,
        stream: Box<dyn Io>,
    ) -> Result<Box<dyn Io>, ConnectError> {
        let Some((config, name)) = tls else { return Ok(stream) };
        let handshake = TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream);
        Ok(Box::new(self.step(deadline, step, handshake).await?))
    }

    async fn step<T>(
        &self,
        deadline: Instant,
        step: ConnectStep,
        work: impl Future<Output = io::Result<T>>,
    ) -> Result<T, ConnectError> {
        let result = timeout_at(deadline, work).await.unwrap_or_else(|_| {
            let message = format!("not done within connect_timeout ({:?})", self.timeout);
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        });
        result.map_err(|source| ConnectError { step, source })
    }
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use rustls::crypto::aws_lc_rs;
    use tokio::net::TcpListener;

    use super::super::error::ExchangePhase;
    use super::*;

    /// A resolver that knows one answer, or never answers.
    #[derive(Debug)]
    struct Fixed(Option<Vec<SocketAddr>>);

    impl Resolve for Fixed {
        fn resolve<'a>(&'a self, _: &'a str, _: u16) -> Addresses<'a> {
            Box::pin(async {
                match &self.0 {
                    Some(addresses) => Ok(addresses.clone()),
                    None => std::future::pending().await,
                }
            })
        }
    }

    fn connector(addresses: Option<Vec<SocketAddr>>, is_tls: bool) -> Connector {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from("refold.example").expect("a name");
        Connector {
            resolver: Arc::new(Fixed(addresses)),
            host: "refold.example".into(),
            port: 443,
            tls: is_tls.then(|| (Arc::new(config), name)),
            proxy: None,
            timeout: Duration::from_millis(50),
        }
    }

    #[tokio::test]
    async fn the_time_limit_covers_every_step() {
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let silent = silent.local_addr().expect("it is bound");
        for (addresses, is_tls, cause) in [
            (None, false, "name look-up: not done within connect_timeout (50ms)"),
            (Some(vec![]), false, "TCP connect: the name has no address"),
            (Some(vec![silent]), true, "TLS handshake: not done within connect_timeout (50ms)"),
        ] {
            let error = connector(addresses, is_tls).connect().await.err().expect("no connection");
            assert_eq!((error.kind(), error.phase()), (TransportErrorKind::Unreachable, ExchangePhase::Connect));
            assert!(error.to_string().ends_with(cause), "{error}");
        }
        assert!(connector(Some(vec![silent]), false).connect().await.is_ok());
    }
}
