//! The connections of the admin listener: each limited in its duration, and all in their number (`connection_table`).

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::time::timeout;

use super::connection_table::{AdminConnection, AdminIo, ConnectionTable};
use super::context::AdminContext;
use super::explorer::Explorer;
use super::response::AdminResponse;
use super::routes;
use crate::log_events;
use crate::observe::AdminCloseReason;
use crate::request::peer::Peer;

/// Longest time for a request head to arrive, the first one and the next. The connection is closed after it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(3);
/// A client that sends requests need not read the responses. Without a limit on the duration of a connection, clients that
/// never read could occupy all connections.
const LIMITS: ConnectionLimits =
    ConnectionLimits { lifetime: Duration::from_secs(30), grace_period: Duration::from_secs(10) };
/// Largest request head, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// Pause before the next accept after an error, for example when the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// The listening socket of the admin listener, before it is registered with a runtime.
#[derive(Debug)]
pub enum AdminSocket {
    /// A TCP socket.
    Tcp(std::net::TcpListener),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixListener),
}

/// The longest duration of a connection.
#[derive(Clone, Copy, Debug)]
struct ConnectionLimits {
    /// Time for which the connection accepts requests.
    lifetime: Duration,
    /// Time after that for requests in flight, before the connection is dropped.
    grace_period: Duration,
}

/// Answers the requests of all connections.
#[derive(Clone, Debug)]
struct AdminService {
    context: Arc<AdminContext>,
    explorer: Arc<Explorer>,
}

/// Accepts and serves connections for as long as it is polled.
///
/// # Errors
/// If the socket can't be registered with the runtime.
pub(super) async fn serve(socket: AdminSocket, context: Arc<AdminContext>) -> io::Result<()> {
    let service = AdminService { context, explorer: Arc::default() };
    match socket {
        AdminSocket::Tcp(listener) => {
            let listener = TcpListener::from_std(listener)?;
            let accept = async || listener.accept().await.map(|(stream, peer)| (stream, Peer::at(peer.ip())));
            accept_all(accept, &service).await
        }
        AdminSocket::Unix(listener) => {
            let listener = UnixListener::from_std(listener)?;
            let user =
                |stream: &UnixStream| stream.peer_cred().map_or(Peer::Unknown, |peer| Peer::LocalUser(peer.uid()));
            let accept = async || listener.accept().await.map(|(stream, _)| (user(&stream), stream));
            accept_all(async || accept().await.map(|(peer, stream)| (stream, peer)), &service).await
        }
    }
}

async fn accept_all<S>(accept: impl AsyncFn() -> io::Result<(S, Peer)>, service: &AdminService) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let table = Arc::<ConnectionTable>::default();
    loop {
        match accept().await {
            Ok((stream, peer)) => {
                let address = if let Peer::Address(address) = peer { Some(address) } else { None };
                let (connection, closed) = table.add(address);
                tokio::spawn(service.clone().serve((stream, peer), connection));
                if let Some(reason) = closed {
                    service.record_closed(reason);
                    // The closed connection frees its descriptor before the next one is accepted.
                    tokio::task::yield_now().await;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::error!(%error, message = log_events::ACCEPT_FAILED);
                table.make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl AdminService {
    async fn serve<S>(self, (stream, peer): (S, Peer), connection: Arc<AdminConnection>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let answer = service_fn(|request| {
            let (context, explorer) = (Arc::clone(&self.context), Arc::clone(&self.explorer));
            let connection = Arc::clone(&connection);
            async move {
                connection.set_answering(true);
                let answer = routes::answer(&context, &explorer, request, peer).await;
                connection.set_answering(false);
                Ok::<_, Infallible>(answer)
            }
        });
        let io = AdminIo::new(stream, Arc::clone(&connection));
        let closed = tokio::select! {
            closed = serve_connection(io, answer, LIMITS) => closed,
            () = connection.closed() => None,
        };
        connection.end();
        if let Some(reason) = closed {
            self.record_closed(reason);
        }
    }

    fn record_closed(&self, reason: AdminCloseReason) {
        self.context.generation.gateway().admin_connection_closed(reason);
    }
}

/// Serves one connection until it ends, or its limits are reached; returns the limit.
async fn serve_connection<S, V>(stream: S, service: V, limits: ConnectionLimits) -> Option<AdminCloseReason>
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: Service<Request<Incoming>, Response = AdminResponse, Error = Infallible>,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    match timeout(limits.lifetime, connection.as_mut()).await {
        Ok(Err(error)) if error.is_timeout() => Some(AdminCloseReason::HeaderTimeout),
        // Another error means that the client has gone; it is not logged.
        Ok(_) => None,
        Err(_) => {
            connection.as_mut().graceful_shutdown();
            let _ = timeout(limits.grace_period, connection).await;
            Some(AdminCloseReason::Lifetime)
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::admin::response::{PROMETHEUS_TEXT, response};

    const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
    const SOON: Duration = Duration::from_millis(1);
    const LATE: Duration = Duration::from_hours(1);

    async fn large(_: Request<Incoming>) -> Result<AdminResponse, Infallible> {
        tokio::task::yield_now().await;
        Ok(response(StatusCode::OK, PROMETHEUS_TEXT, Bytes::from(vec![b'x'; 1 << 20])))
    }

    #[tokio::test]
    async fn a_client_that_never_reads_is_dropped() {
        let (mut client, stream) = duplex(4096);
        client.write_all(&REQUEST.repeat(8)).await.expect("it fits");
        let limits = ConnectionLimits { lifetime: SOON, grace_period: SOON };
        let connection = serve_connection(stream, service_fn(large), limits);
        timeout(LATE / 60, connection).await.expect("it is dropped");
        // The client kept the connection open until here.
        drop(client);
    }

    #[tokio::test]
    async fn a_request_in_flight_at_the_end_is_still_answered() {
        let (mut client, stream) = duplex(4096);
        client.write_all(REQUEST).await.expect("it fits");
        let limits = ConnectionLimits { lifetime: Duration::ZERO, grace_period: LATE };
        let connection = serve_connection(stream, service_fn(large), limits);
        let mut answer = String::new();
        let (_, read) = tokio::join!(connection, client.read_to_string(&mut answer));
        read.expect("UTF-8");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("xxxx"), "{}", answer.len());
        assert!(answer.len() > 1 << 20);
    }
}
