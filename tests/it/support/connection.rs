//! Connections that a test holds open and writes to byte by byte.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

use super::leaks::Watched;
use super::until::within;
use super::{EXECUTIONS, KEY, leaks};

/// An HTTP/1.1 connection.
pub(crate) struct Connection<S = TcpStream>(Watched<S>);

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self(Watched::new(TcpStream::connect(address).await.expect("the server listens")))
    }
}

impl Connection<UnixStream> {
    pub(crate) async fn open_unix(path: &Path) -> Self {
        Self(Watched::new(UnixStream::connect(path).await.expect("the server listens")))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.expect("the server reads");
    }

    /// Sends bytes, unless the server has closed the connection.
    pub(crate) async fn try_write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.write_all(bytes.as_ref()).await;
    }

    /// Sends a `GET` of the executions with these header lines.
    pub(crate) async fn send(&mut self, lines: &str) {
        self.write(get(EXECUTIONS, lines)).await;
    }

    /// Reads the next response and returns its head.
    pub(crate) async fn receive(&mut self) -> String {
        let head = self.receive_until("\r\n\r\n").await;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.parse().expect("a number")];
        within(self.0.read_exact(&mut body)).await.expect("a body");
        head
    }

    /// Sends a `GET` of the executions, and returns the head of the response.
    pub(crate) async fn ask(&mut self, lines: &str) -> String {
        self.send(lines).await;
        self.receive().await
    }

    /// Reads until a text has come in.
    pub(crate) async fn receive_until(&mut self, end: &str) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end.as_bytes()) {
            let read = within(self.0.read_u8()).await;
            bytes.push(read.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&bytes))));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Ends the output, so that the server reads the end of its input.
    pub(crate) async fn half_close(&mut self) {
        self.0.shutdown().await.expect("the connection is open");
    }

    /// Reads until the connection ends.
    pub(crate) async fn rest(mut self) -> String {
        let mut bytes = Vec::new();
        let _ = within(self.0.read_to_end(&mut bytes)).await;
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Returns whether the server closes the connection, with no further byte.
    pub(crate) async fn ends(mut self) -> bool {
        within(self.0.read(&mut [0])).await.is_ok_and(|read| read == 0)
    }
}

/// A `GET` with these header lines.
pub(crate) fn get(target: &str, lines: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
}

/// The header lines of a caller of a linked account with a client key.
pub(crate) fn with_key(key: &str, linked_account: &str) -> String {
    format!("x-api-key: {key}\r\nlinked_account_id: {linked_account}\r\n")
}

/// [`with_key`] with [`KEY`], on a connection that ends with the response.
pub(crate) fn once_as(linked_account: &str) -> String {
    format!("Connection: close\r\n{}", with_key(KEY, linked_account))
}

/// Sends bytes as they are on a new connection, and reads until it ends.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut connection = Connection::open(address).await;
    connection.write(bytes).await;
    connection.rest().await
}

/// Sends requests over an HTTP/2 connection.
pub(crate) struct Http2(SendRequest<Full<Bytes>>);

impl Http2 {
    /// Sends a request. No secret may be in the headers of its response, which are compressed on the wire.
    pub(crate) fn send_request(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + use<> {
        let answer = self.0.send_request(request);
        async {
            let answer = answer.await?;
            leaks::check("a response over HTTP/2", &format!("{:?}", answer.headers()));
            Ok(answer)
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// Opens an HTTP/2 connection by prior knowledge; the task ends when the connection does.
pub(crate) async fn http_2(address: SocketAddr) -> (Http2, JoinHandle<hyper::Result<()>>) {
    http_2_over(TcpStream::connect(address).await.expect("the server listens"), None).await
}

/// Begins an HTTP/2 connection, with so many bytes of each response before they are read.
pub(crate) async fn http_2_over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    window: Option<u32>,
) -> (Http2, JoinHandle<hyper::Result<()>>) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(window);
    let (sender, connection) = builder.handshake(TokioIo::new(Watched::new(stream))).await.expect("HTTP/2");
    (Http2(sender), tokio::spawn(connection))
}

/// A request for the executions of a linked account, for [`http_2`].
pub(crate) fn http_2_request(method: &str, address: SocketAddr, linked_account: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("http://{address}{EXECUTIONS}"))
        .header("x-api-key", KEY)
        .header("linked_account_id", linked_account)
        .body(Full::default())
        .expect("a request")
}
