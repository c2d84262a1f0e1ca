//! The connections of the admin listener: few, and none waits for ever.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::explore::Explorer;
use super::{Sources, routes};

/// Connections at once; those beyond wait to be accepted.
const CONNECTIONS: usize = 64;
/// A connection on which no whole head has come in for this long is closed.
const HEAD: Duration = Duration::from_secs(10);
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
        tracing::error!(%error, "accept_failed");
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
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(LARGEST_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        // A connection that breaks is its peer's business: there is nobody left to tell.
        let _ = served.await;
        drop(place);
    });
}
