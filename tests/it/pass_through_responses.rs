//! Responses to pass-through requests: status and headers reach the caller as Refold sent them, and no org key does.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::connection::http_2;
use crate::support::{Gateway, ORG_KEY, World, as_account, http_upstream, spawn_upstream};

const LIST: &str = r#"
[[pass_through]]
methods = ["GET", "HEAD", "POST"]
path = "/api/v2/public/workflow/**"
"#;

async fn gateway(upstream: SocketAddr) -> Gateway {
    World::builder().refold(upstream).config(|config| config.toml(LIST)).start().await.gateway
}

/// An upstream whose responses have the header that a request's query names: `?name=value`.
async fn with_header(forms: &'static [fn() -> String]) -> SocketAddr {
    http_upstream(move |request: Request<Incoming>| async move {
        let (name, index) = request.uri().query().and_then(|query| query.split_once('=')).expect("a header");
        let form = forms[index.parse::<usize>().expect("an index")]();
        let mut response = Response::new(Full::new(Bytes::from_static(b"body")));
        let name: HeaderName = name.parse().expect("a name");
        // The first of two values of one header is harmless.
        response.headers_mut().append(&name, HeaderValue::from_static("\"harmless\""));
        response.headers_mut().append(&name, form.parse().expect("a value"));
        response
    })
    .await
}

const FORMS: &[fn() -> String] = &[
    || format!("\"{ORG_KEY}\""),
    || format!("<https://app.refold.ai/?k={}>; rel=next", ORG_KEY.replace('_', "%5F")),
    || format!("attachment; filename*=UTF-8''{}", ORG_KEY.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>()),
    || format!("W/\"{}\"", STANDARD.encode(format!("GET /:{ORG_KEY}:acme"))),
    || format!("\"{}\"", ORG_KEY.bytes().map(|byte| format!("{byte:02X}")).collect::<String>()),
    || format!("attachment; filename=\"{}\"", ORG_KEY.chars().map(|letter| format!("\\{letter}")).collect::<String>()),
    || ORG_KEY.to_uppercase(),
];

#[tokio::test]
async fn a_response_with_the_org_key_in_a_header_is_refused() {
    let gateway = gateway(with_header(FORMS).await).await;
    for name in ["etag", "link", "content-type", "content-disposition", "last-modified"] {
        for form in 0..FORMS.len() {
            let target = format!("/api/v2/public/workflow/1?{name}={form}");
            let answer = gateway.get(&target, &as_account("acme-1")).await;
            assert_eq!(answer.error(), (502, "UPSTREAM_INVALID_RESPONSE".to_owned()), "{name}: {}", FORMS[form]());
            assert!(answer.headers.values().all(|value| value != FORMS[form]().as_str()), "{:?}", answer.headers);
        }
    }
    // A header that is never passed on harms nothing.
    let target = "/api/v2/public/workflow/1?x-echo=0";
    let answer = gateway.get(target, &as_account("acme-1")).await;
    assert_eq!((answer.status, answer.headers.get("x-echo")), (StatusCode::OK, None));
}

#[tokio::test]
async fn trailers_are_not_passed_on() {
    let upstream = spawn_upstream(|listener| async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: etag, x-echo\r\n\r\n";
            let body = format!("4\r\nbody\r\n0\r\netag: \"{ORG_KEY}\"\r\nx-echo: {ORG_KEY}\r\n\r\n");
            let _ = stream.write_all((head.to_owned() + &body).as_bytes()).await;
        }
    })
    .await;
    let gateway = gateway(upstream).await;
    let (mut sender, _connection) = http_2(gateway.address).await;
    let mut request = Request::get(format!("http://{}/api/v2/public/workflow/1", gateway.address));
    for (name, value) in as_account("acme-1") {
        request = request.header(name, value);
    }
    let request = request.header("te", "trailers").body(Full::default()).expect("a request");
    let response = sender.send_request(request).await.expect("a response");
    let body = response.into_body().collect().await.expect("a body");
    assert_eq!(body.trailers(), None);
    assert_eq!(body.to_bytes(), "body");
}
