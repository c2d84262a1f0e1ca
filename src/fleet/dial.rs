//! Opens sockets to the fleet's server: TCP or a Unix socket, with TLS or without.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::config::HostAndPort;
use crate::http_client::dial;

/// Sent bytes that are not acknowledged for this long end the connection, also while no command waits for an answer.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(1);

/// Bytes to and from the server, inside TLS if there is any.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// TLS settings of connections, if they use it.
#[derive(Clone)]
pub(super) struct MaybeTls(pub(super) Option<Arc<ClientConfig>>);

impl fmt::Debug for MaybeTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "TLS" } else { "plain" })
    }
}

/// Connects to a Unix socket.
pub(super) async fn unix(path: &Path) -> io::Result<Box<dyn Stream>> {
    Ok(Box::new(UnixStream::connect(path).await?))
}

/// Connects to any address of a host. The name is looked up each time, so that it can move.
pub(super) async fn tcp(server: &HostAndPort, tls: &MaybeTls) -> io::Result<Box<dyn Stream>> {
    let addresses = tokio::net::lookup_host((&*server.host, server.port)).await?.collect();
    let stream = dial(addresses, connect).await?;
    let Some(tls) = &tls.0 else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(server.host.to_string()).map_err(io::Error::other)?;
    Ok(Box::new(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?))
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(stream)
}
