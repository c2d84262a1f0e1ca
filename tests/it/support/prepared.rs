//! An upstream whose responses a test writes byte by byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use postern::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::upstream::spawn_upstream;
use super::world::Upstream;

/// A Refold that sends prepared responses, one for each request, and the last one from then on. It closes the connection after
/// a response with `Connection: close`, and after an empty one.
pub(crate) struct PreparedRefold {
    responses: Vec<Vec<u8>>,
    requests: Arc<AtomicUsize>,
}

impl PreparedRefold {
    pub(crate) fn new(responses: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self { responses: responses.into_iter().collect(), requests: Arc::default() }
    }

    /// The number of requests that have come in.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Upstream for PreparedRefold {
    type Running = Self;

    async fn run(self, _: &Clock) -> (SocketAddr, Self) {
        let (responses, requests) = (Arc::<[_]>::from(self.responses.clone()), Arc::clone(&self.requests));
        let address = spawn_upstream(|listener| async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&responses), Arc::clone(&requests)));
            }
        })
        .await;
        (address, self)
    }
}

async fn serve(mut stream: TcpStream, responses: Arc<[Vec<u8>]>, requests: Arc<AtomicUsize>) {
    let mut head = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        head.push(byte);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        head.clear();
        let number = requests.fetch_add(1, Ordering::SeqCst).min(responses.len() - 1);
        let response = &responses[number];
        let closes = String::from_utf8_lossy(response).to_ascii_lowercase().contains("connection: close");
        if stream.write_all(response).await.is_err() || response.is_empty() || closes {
            return;
        }
    }
}
