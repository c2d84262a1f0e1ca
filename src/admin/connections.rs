//! The connections of the admin listener: few, and none waits for ever.

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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::answer::Answer;
use super::explore::Explorer;
use super::{Sources, routes};

use crate::log_events;

/// Connections at once; those beyond wait to be accepted.
const CONNECTIONS: usize = 64;
/// A connection on which no whole head has come in for this long is closed.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection serves, and how long what is in flight then may take. A whole head that comes in is no sign that
/// anybody reads the answers: without an end, a few who never read would keep everybody else out.
const BOUNDS: Bounds = Bounds { life: Duration::from_secs(30), goodbye: Duration::from_secs(10) };
/// Largest head, in bytes.
const LARGEST_HEAD: usize = 16 << 10;
/// How long accepting rests when the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A socket that listens, not yet tied to a runtime.
#[derive(Debug)]
pub enum Socket {
    /// A TCP one.
    Tcp(std::net::TcpListener),
    /// A Unix one.
    Unix(std::os::unix::net::UnixListener),
}

/// How long a connection may last.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Until it takes no more requests.
    life: Duration,
    /// From then until it is dropped.
    goodbye: Duration,
}

/// Serves for as long as it is polled.
pub(super) async fn serve(socket: Socket, sources: Arc<Sources>) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let explorer = Arc::<Explorer>::default();
    match socket {
        Socket::Tcp(listener) => {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let place = place(&places).await;
                match listener.accept().await {
                    Ok((stream, _)) => answer(stream, &sources, &explorer, place),
                    Err(error) => pause(&error).await,
                }
            }
        }
        Socket::Unix(listener) => {
            let listener = UnixListener::from_std(listener)?;
            loop {
                let place = place(&places).await;
                match listener.accept().await {
                    Ok((stream, _)) => answer(stream, &sources, &explorer, place),
                    Err(error) => pause(&error).await,
                }
            }
        }
    }
}

/// Waits until there are fewer connections than there may be. The semaphore is never closed.
async fn place(places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(places).acquire_owned().await.ok()
}

async fn pause(error: &io::Error) {
    if error.kind() != io::ErrorKind::ConnectionAborted {
        tracing::error!(%error, message = log_events::ACCEPT_FAILED);
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

fn answer<S>(stream: S, sources: &Arc<Sources>, explorer: &Arc<Explorer>, place: Option<OwnedSemaphorePermit>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sources, explorer) = (Arc::clone(sources), Arc::clone(explorer));
    tokio::spawn(async move {
        let service = service_fn(|request| {
            let (sources, explorer) = (Arc::clone(&sources), Arc::clone(&explorer));
            async move { Ok::<_, Infallible>(routes::answer(&sources, &explorer, request).await) }
        });
        converse(stream, service, BOUNDS).await;
        drop(place);
    });
}

/// Answers the requests of one connection until it ends, within its bounds.
async fn converse<S, V>(stream: S, service: V, bounds: Bounds)
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: Service<Request<Incoming>, Response = Answer, Error = Infallible>,
{
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    // A connection that breaks is its peer's business: there is nobody left to tell.
    if timeout(bounds.life, served.as_mut()).await.is_err() {
        served.as_mut().graceful_shutdown();
        let _ = timeout(bounds.goodbye, served).await;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::admin::answer::{METRICS, answer};

    const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
    const SOON: Duration = Duration::from_millis(1);
    const LATE: Duration = Duration::from_hours(1);

    async fn large(_: Request<Incoming>) -> Result<Answer, Infallible> {
        tokio::task::yield_now().await;
        Ok(answer(StatusCode::OK, METRICS, Bytes::from(vec![b'x'; 1 << 20])))
    }

    #[tokio::test]
    async fn whoever_asks_and_never_reads_the_answers_is_dropped() {
        let (mut client, stream) = duplex(4096);
        client.write_all(&REQUEST.repeat(8)).await.expect("it fits");
        let conversation = converse(stream, service_fn(large), Bounds { life: SOON, goodbye: SOON });
        timeout(LATE / 60, conversation).await.expect("it is dropped");
        // It was here all the time.
        drop(client);
    }

    #[tokio::test]
    async fn a_request_in_flight_at_the_end_is_answered_and_no_other_follows() {
        let (mut client, stream) = duplex(4096);
        client.write_all(REQUEST).await.expect("it fits");
        let conversation = converse(stream, service_fn(large), Bounds { life: Duration::ZERO, goodbye: LATE });
        let mut answer = String::new();
        let ((), read) = tokio::join!(conversation, client.read_to_string(&mut answer));
        read.expect("UTF-8");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("xxxx"), "{}", answer.len());
        assert!(answer.len() > 1 << 20);
    }
}
