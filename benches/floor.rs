//! The floor of the side-by-side benchmark: hyper sends a constant response of a page's size, with the headers of a gateway,
//! from one thread. A server that is built on hyper can't use less CPU time.
//!
//! `cargo bench --bench floor -- 127.0.0.1:8111` serves until it is killed; without an address (as `cargo test` and a
//! plain `cargo bench` run it) the program ends at once.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Size of a page of ten executions, in bytes.
const BODY_SIZE: usize = 5_072;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(address) = std::env::args().skip(1).find(|argument| !argument.starts_with("--")) else { return Ok(()) };
    let body = Bytes::from(vec![b'x'; BODY_SIZE]);
    let headers: HeaderMap = [
        (http::header::CONTENT_TYPE, "application/json"),
        (http::header::ETAG, "\"0123456789abcdef0123456789abcdef\""),
        (http::header::AGE, "1"),
        (http::header::CACHE_CONTROL, "private, max-age=5"),
        (http::header::VARY, "authorization, x-api-key, linked_account_id, linked-account-id"),
        (http::HeaderName::from_static("cache-status"), "postern; hit; ttl=4"),
        (http::HeaderName::from_static("ratelimit"), "\"default\";r=99;t=1"),
        (http::HeaderName::from_static("ratelimit-policy"), "\"default\";q=100;w=2"),
        (http::HeaderName::from_static("x-request-id"), "5d0c3b2a-8f6e-4d1c-9b7a-6f5e4d3c2b1a"),
    ]
    .into_iter()
    .map(|(name, value)| (name, HeaderValue::from_static(value)))
    .collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (body, headers) = (body.clone(), headers.clone());
            tokio::spawn(async move {
                let service = service_fn(move |_: Request<Incoming>| {
                    let mut response = Response::new(Full::new(body.clone()));
                    *response.headers_mut() = headers.clone();
                    std::future::ready(Ok::<_, Infallible>(response))
                });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}
