//! The connections of the admin listener: limited in number, and each in its duration.

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
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::context::AdminContext;
use super::explorer::Explorer;
use super::response::AdminResponse;
use super::routes;
use crate::log_events;

/// Most open connections; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// Longest time for a request head to arrive. The connection is closed after it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that sends requests need not read the responses. Without a limit on the duration of a connection, clients that
/// never read could occupy all connections.
const LIMITS: ConnectionLimits =
    ConnectionLimits { lifetime: Duration::from_secs(30), grace_period: Duration::from_secs(10) };
/// Largest request head, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// Pause before the next accept after an error, for example when the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
            accept_all(async || Ok(listener.accept().await?.0), &service).await
        }
        AdminSocket::Unix(listener) => {
            let listener = UnixListener::from_std(listener)?;
            accept_all(async || Ok(listener.accept().await?.0), &service).await
        }
    }
}

async fn accept_all<S>(accept: impl AsyncFn() -> io::Result<S>, service: &AdminService) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let permit = Arc::clone(&permits).acquire_owned().await.ok();
        match accept().await {
            Ok(stream) => {
                let service = service.clone();
                tokio::spawn(async move {
                    let answer = service_fn(|request| {
                        let AdminService { context, explorer } = service.clone();
                        async move { Ok::<_, Infallible>(routes::answer(&context, &explorer, request).await) }
                    });
                    serve_connection(stream, answer, LIMITS).await;
                    drop(permit);
                });
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::error!(%error, message = log_events::ACCEPT_FAILED);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection until it ends, or its limits are reached.
async fn serve_connection<S, V>(stream: S, service: V, limits: ConnectionLimits)
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
    // An error means that the client has gone; it is not logged.
    if timeout(limits.lifetime, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(limits.grace_period, connection).await;
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
        let ((), read) = tokio::join!(connection, client.read_to_string(&mut answer));
        read.expect("UTF-8");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("xxxx"), "{}", answer.len());
        assert!(answer.len() > 1 << 20);
    }
}
