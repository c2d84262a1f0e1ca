//! Uploads of pass-through routes that Refold answers before it has all of their content.

use http::{Method, StatusCode};

use crate::support::connection::{Connection, with_key};
use crate::support::counted::{answer_all, gateway, read_head, say, upstream};
use crate::support::{Configuration, EMPTY_PAGE, EXECUTIONS, KEY, as_account};

const UPLOAD: &str = "/api/v2/public/workflow/7/execute";

fn with_route(config: Configuration) -> Configuration {
    let config = config
        .toml("[[pass_through]]\nmethods = [\"POST\"]\npath = \"/api/v2/public/workflow/*/execute\"\nscope = \"org\"");
    config.set("upstream.first_byte_timeout", "2s").set("upstream.suspect_after", "1m")
}

#[tokio::test]
async fn the_connection_of_an_unfinished_upload_takes_no_other_request() {
    let stop = format!("{EXECUTIONS}/1/stop");
    for (framing, begins) in [
        ("transfer-encoding: chunked", "5\r\nhello\r\n"),
        ("transfer-encoding: chunked", ""),
        ("content-length: 100000", "hello"),
    ] {
        for (method, target) in [(Method::POST, &*stop), (Method::GET, EXECUTIONS), (Method::POST, UPLOAD)] {
            // Answers a request once it has the head.
            let (address, counters) = upstream(|mut stream, _, counters| async move {
                while read_head(&mut stream, &counters).await {
                    say(&mut stream, EMPTY_PAGE).await;
                }
            })
            .await;
            let gateway = gateway(address, with_route);
            let mut uploading = Connection::open(gateway.address).await;
            let lines = with_key(KEY, "acme-1") + "content-type: application/octet-stream\r\n" + framing;
            uploading.write(format!("POST {UPLOAD} HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{begins}")).await;
            let head = uploading.receive().await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            let answer = gateway.send(method, target, &as_account("acme-1")).await;
            assert_eq!(answer.status, StatusCode::OK, "{framing}, {target}: {:?}", answer.body);
            assert_eq!((counters.requests(), counters.opened()), (2, 2), "{framing}, {target}");
        }
    }
}

#[tokio::test]
async fn the_connection_of_a_finished_upload_is_used_again() {
    let (address, counters) = upstream(|mut stream, _, counters| async move {
        while read_head(&mut stream, &counters).await {
            let mut content = vec![0; 100_000];
            let _ = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut content).await;
            say(&mut stream, EMPTY_PAGE).await;
        }
    })
    .await;
    let gateway = gateway(address, with_route);
    for _ in 0..5 {
        let content = "x".repeat(100_000);
        let headers = [as_account("acme-1").as_slice(), &[("content-type", "application/octet-stream")]].concat();
        assert_eq!(gateway.post(UPLOAD, &headers, &content).await.status, StatusCode::OK);
    }
    assert_eq!((counters.requests(), counters.opened()), (5, 1));
}

#[tokio::test]
async fn the_connection_of_a_body_that_refold_does_not_read_takes_no_other_request() {
    let refusal = "HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\n{}";
    for kind in ["application/json", "application/octet-stream"] {
        let (address, counters) = upstream(move |mut stream, number, counters| async move {
            if number > 1 {
                return answer_all(stream, number, counters).await;
            }
            read_head(&mut stream, &counters).await;
            say(&mut stream, refusal).await;
            std::future::pending::<()>().await;
        })
        .await;
        let scope = if kind == "application/json" { "account" } else { "org" };
        let gateway = gateway(address, |config| {
            let route = format!("methods = [\"POST\"]\npath = \"{UPLOAD}\"\nscope = \"{scope}\"");
            config.toml(&format!("[[pass_through]]\n{route}")).set("upstream.first_byte_timeout", "2s")
        });
        // More than the buffers of a socket hold.
        let content = format!("{{\"a\":\"{}\"}}", "x".repeat(12 << 20));
        let headers = [as_account("acme-1").as_slice(), &[("content-type", kind)]].concat();
        assert_eq!(gateway.post(UPLOAD, &headers, &content).await.status, StatusCode::PAYLOAD_TOO_LARGE, "{kind}");
        let answer = gateway.get(EXECUTIONS, &as_account("acme-1")).await;
        assert_eq!(answer.status, StatusCode::OK, "{kind}: {:?}", answer.body);
        assert_eq!((counters.requests(), counters.opened()), (2, 2), "{kind}");
    }
}
