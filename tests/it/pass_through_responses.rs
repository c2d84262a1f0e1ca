//! Responses to pass-through requests: status and headers reach the caller as Refold sent them, and no org key does.

use std::io::Write;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use postern::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::connection::http_2;
use crate::support::{Configuration, Gateway, ORG_KEY, World, as_account, http_upstream, spawn_upstream};

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

#[expect(clippy::format_collect, reason = "short, and only a test")]
const FORMS: &[fn() -> String] = &[
    || format!("\"{ORG_KEY}\""),
    || format!("<https://app.refold.ai/?k={}>; rel=next", ORG_KEY.replace('_', "%5F")),
    || {
        format!(
            "attachment; filename*=UTF-8''{}",
            ORG_KEY.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>()
        )
    },
    || format!("W/\"{}\"", STANDARD.encode(format!("GET /:{ORG_KEY}:acme"))),
    || format!("\"{}\"", ORG_KEY.bytes().map(|byte| format!("{byte:02X}")).collect::<String>()),
    || format!("attachment; filename=\"{}\"", ORG_KEY.chars().map(|letter| format!("\\{letter}")).collect::<String>()),
    || ORG_KEY.to_uppercase(),
];

#[tokio::test]
async fn a_response_with_the_org_key_in_a_header_is_refused() {
    let gateway = gateway(with_header(FORMS).await).await;
    for name in ["etag", "link", "content-type", "content-disposition", "last-modified"] {
        for (index, form) in FORMS.iter().enumerate() {
            let target = format!("/api/v2/public/workflow/1?{name}={index}");
            let answer = gateway.get(&target, &as_account("acme-1")).await;
            assert_eq!(answer.error(), (502, "UPSTREAM_INVALID_RESPONSE".to_owned()), "{name}: {}", form());
            assert!(answer.headers.values().all(|value| value != form().as_str()), "{:?}", answer.headers);
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

/// An upstream that answers with the bytes of `answers`, by the last segment of the path.
async fn scripted(answers: fn(&str) -> Vec<u8>) -> SocketAddr {
    spawn_upstream(move |listener| async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap_or_default();
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default();
                let _ = stream.write_all(&answers(path.rsplit('/').next().unwrap_or_default())).await;
            });
        }
    })
    .await
}

#[tokio::test]
async fn every_status_passes_with_the_headers_that_it_needs() {
    let upstream = scripted(|name| {
        let head = match name {
            "206" => "206 Partial Content\r\ncontent-range: bytes 0-3/9\r\naccept-ranges: bytes\r\ncontent-length: 4\r\n\r\nbody",
            "201" => "201 Created\r\nlocation: /api/v2/public/workflow/7\r\ncontent-length: 0\r\n\r\n",
            "304" => "304 Not Modified\r\netag: W/\"1\"\r\ncontent-encoding: gzip\r\n\r\n",
            "302" => "302 Found\r\nlocation: https://files.example/a?b=c\r\ncontent-length: 0\r\n\r\n",
            "204" => "204 No Content\r\netag: \"2\"\r\ncontent-encoding: odd\r\n\r\n",
            "207" => "207 Multi-Status\r\ncontent-language: de\r\ncontent-length: 4\r\n\r\nbody",
            "416" => "416 Range Not Satisfiable\r\ncontent-range: bytes */9\r\ncontent-length: 0\r\n\r\n",
            "405" => "405 Method Not Allowed\r\nallow: PUT\r\ncontent-length: 0\r\n\r\n",
            _ => "404 Not Found\r\ncontent-length: 0\r\n\r\n",
        };
        format!("HTTP/1.1 {head}").into_bytes()
    })
    .await;
    let gateway = gateway(upstream).await;
    for (status, name, value, body) in [
        (206, "content-range", "bytes 0-3/9", Some("body")),
        (206, "accept-ranges", "bytes", Some("body")),
        (201, "location", "/api/v2/public/workflow/7", Some("")),
        (304, "etag", "W/\"1\"", Some("")),
        (302, "location", "https://files.example/a?b=c", Some("")),
        (204, "etag", "\"2\"", Some("")),
        (207, "content-language", "de", Some("body")),
        (416, "content-range", "bytes */9", None),
        (405, "allow", "PUT", None),
    ] {
        let answer = gateway.get(&format!("/api/v2/public/workflow/{status}"), &as_account("acme-1")).await;
        assert_eq!((answer.status.as_u16(), answer.header(name)), (status, value), "{answer:?}");
        match body {
            Some(body) => assert_eq!(answer.body, body, "{status}"),
            // Errors have the documented shape.
            None => assert_eq!(answer.error().0, status),
        }
    }
}

#[tokio::test]
async fn a_location_at_refold_leads_through_the_gateway() {
    let upstream = http_upstream(|request: Request<Incoming>| async move {
        let host = request.headers().get("host").expect("a host").to_str().expect("ASCII").to_owned();
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::CREATED;
        let location = format!("http://{host}/api/v2/public/workflow/7?a=b");
        response.headers_mut().insert("link", format!("<{location}>; rel=self").parse().expect("a value"));
        response.headers_mut().insert("location", location.parse().expect("a value"));
        response
    })
    .await;
    let answer = gateway(upstream).await.get("/api/v2/public/workflow/1", &as_account("acme-1")).await;
    assert_eq!(answer.header("location"), "/api/v2/public/workflow/7?a=b");
    assert_eq!(answer.header("link"), "</api/v2/public/workflow/7?a=b>; rel=self");
}

#[tokio::test]
async fn a_location_below_the_path_of_the_base_url_leads_through_the_gateway() {
    let upstream = http_upstream(|request: Request<Incoming>| async move {
        let (target, host) = (request.uri().to_string(), request.headers()["host"].to_str().expect("ASCII").to_owned());
        let (path, wanted) = target.split_once("?to=").expect("a location");
        assert_eq!(path, "/refold/eu/api/v2/public/workflow/1", "below the path");
        let location = wanted.replace("HOST", &host);
        let mut response = Response::new(Full::default());
        response.headers_mut().insert("link", format!("<{location}>; rel=next").parse().expect("a value"));
        response.headers_mut().insert("location", location.parse().expect("a value"));
        response
    })
    .await;
    let base = format!("http://{upstream}/refold/eu/");
    let config = Configuration::new().toml(LIST).set("upstream.base_url", base);
    let gateway = Gateway::start(&config, &Clock::system());
    for (location, expected) in [
        ("http://HOST/refold/eu/api/v2/public/workflow/7", "/api/v2/public/workflow/7"),
        ("/refold/eu/api/v2/public/workflow/7", "/api/v2/public/workflow/7"),
        ("//HOST/refold/eu", "/"),
        ("/refold/eu//evil.example/", "/.//evil.example/"),
        ("/refold/europe/7", "/refold/europe/7"),
        ("//files.example/refold/eu/7", "//files.example/refold/eu/7"),
        ("https://files.example/refold/eu/7", "https://files.example/refold/eu/7"),
        ("7/nodes", "7/nodes"),
    ] {
        let answer = gateway.get(&format!("/api/v2/public/workflow/1?to={location}"), &as_account("acme-1")).await;
        assert_eq!(answer.header("location"), expected, "{location}");
        assert_eq!(answer.header("link"), format!("<{expected}>; rel=next"), "{location}");
    }
}

fn coded(coding: &str, text: &str) -> Vec<u8> {
    let mut body = Vec::new();
    match coding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(&mut body, flate2::Compression::default());
            encoder.write_all(text.as_bytes()).expect("memory");
            encoder.finish().expect("memory");
        }
        "br" => {
            let mut encoder = brotli::CompressorWriter::new(&mut body, 4096, 5, 22);
            encoder.write_all(text.as_bytes()).expect("memory");
        }
        "zstd" => body = zstd::bulk::compress(text.as_bytes(), 3).expect("memory"),
        _ => body = text.as_bytes().to_vec(),
    }
    body
}

/// `gzip-key` is a body with the org key in gzip, `gzip-plain` one without it, `gzip-zeros` a small one that becomes large.
fn coded_answer(name: &str) -> Vec<u8> {
    let (coding, content) = name.split_once('-').unwrap_or((name, ""));
    let text = match content {
        "key" => format!("{{\"echo\": \"{ORG_KEY}\"}}"),
        "zeros" => "0".repeat(20 << 20),
        _ => "{\"docs\": []}".to_owned(),
    };
    let body = coded(coding, &text);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.into_bytes(), body].concat()
}

#[tokio::test]
async fn a_coded_body_passes_as_it_is_unless_the_org_key_is_in_it() {
    let gateway = gateway(scripted(coded_answer).await).await;
    for coding in ["gzip", "br", "zstd", "identity"] {
        let target = |content| format!("/api/v2/public/workflow/{coding}-{content}");
        let answer = gateway.get(&target("plain"), &as_account("acme-1")).await;
        assert_eq!((answer.status, answer.header("content-encoding")), (StatusCode::OK, coding));
        assert_eq!(answer.body, coded(coding, "{\"docs\": []}"), "{coding}");
        for content in ["key", "zeros"] {
            let cut_off = gateway.try_send(Method::GET, &target(content), &as_account("acme-1")).await;
            assert!(cut_off.is_err(), "{coding} {content}");
        }
    }
    // In a coding that the gateway can't remove, it can't find a key.
    let answer = gateway.get("/api/v2/public/workflow/odd-plain", &as_account("acme-1")).await;
    assert_eq!(answer.error(), (502, "UPSTREAM_INVALID_RESPONSE".to_owned()));
}

/// A 404 with the code of Refold's error, in the coding that the name says; `cut` ends within its body.
fn coded_error(name: &str) -> Vec<u8> {
    let text = r#"{"error_code":"NO_SUCH_THING","message":"It went"}"#;
    let (body, length) = match name {
        "bom" => (format!("\u{feff}{text}").into_bytes(), text.len() + 3),
        "cut" => (text.as_bytes()[..9].to_vec(), text.len()),
        "wrong" => (b"no gzip".to_vec(), 7),
        coding => (coded(coding, text), coded(coding, text).len()),
    };
    let coding = match name {
        "bom" | "cut" => "identity",
        "wrong" => "gzip",
        coding => coding,
    };
    let head = format!("HTTP/1.1 404 Not Found\r\ncontent-encoding: {coding}\r\ncontent-length: {length}\r\n\r\n");
    [head.into_bytes(), body].concat()
}

#[tokio::test]
async fn the_code_of_an_error_is_read_in_every_coding() {
    let gateway = gateway(scripted(coded_error).await).await;
    for (name, code) in [
        ("identity", "NO_SUCH_THING"),
        ("gzip", "NO_SUCH_THING"),
        ("br", "NO_SUCH_THING"),
        ("zstd", "NO_SUCH_THING"),
        ("bom", "NO_SUCH_THING"),
        ("odd", "NOT_FOUND"),
        ("wrong", "NOT_FOUND"),
        ("cut", "NOT_FOUND"),
    ] {
        let answer = gateway.get(&format!("/api/v2/public/workflow/{name}"), &as_account("acme-1")).await;
        assert_eq!(answer.error(), (404, code.to_owned()), "{name}");
    }
}

#[tokio::test]
async fn a_preflight_permits_the_headers_that_are_forwarded() {
    let list = format!("{LIST}request_headers = [\"slug\", \"range\"]\n[cors]\norigins = [\"https://app.example\"]\n");
    let world = World::builder().config(|config| config.toml(&list)).start().await;
    let preflight = |target: &'static str| {
        let headers = [("origin", "https://app.example"), ("access-control-request-method", "GET")];
        let gateway = &world.gateway;
        async move {
            let answer = gateway.send(Method::OPTIONS, target, &headers).await;
            assert_eq!(answer.status, StatusCode::NO_CONTENT);
            let values = answer.headers.get_all("access-control-allow-headers").iter();
            values.map(|value| value.to_str().expect("ASCII").to_owned()).collect::<Vec<_>>().join(", ")
        }
    };
    let passed = preflight("/api/v2/public/workflow/1").await;
    assert!(passed.ends_with("traceparent, tracestate, slug, range"), "{passed}");
    let own = preflight("/api/v2/public/execution").await;
    assert!(own.ends_with("traceparent, tracestate"), "{own}");
}
