//! Upstreams that a test writes by hand.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

/// A response that is a page of no execution.
pub(crate) const EMPTY_PAGE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 26\r\n\r\n{\"docs\":[],\"totalDocs\":0} ";

/// Runs an upstream in the background of the test.
pub(crate) async fn spawn_upstream<F: Future<Output = ()> + Send + 'static>(
    serve: impl FnOnce(TcpListener) -> F,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("the listener is bound");
    tokio::spawn(serve(listener));
    address
}

/// Runs an upstream that answers each request with what a function makes of it.
pub(crate) async fn http_upstream<F, R>(answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    spawn_upstream(move |listener| async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answered = answer(request);
                async move { Ok::<_, Infallible>(answered.await) }
            });
            tokio::spawn(async move {
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
    .await
}

/// A page of one execution.
pub(crate) fn page_of(document: &Value) -> Response<Full<Bytes>> {
    let page = json!({ "docs": [document], "totalDocs": 1 });
    Response::new(Full::new(page.to_string().into()))
}

/// Reads the head of the next request; `None` at the end of the connection.
pub(crate) async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).expect("text"))
}
