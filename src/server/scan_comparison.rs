//! Compares the request scan with hyper: whatever arrives, the heads that the scan finds are those of the requests that hyper begins.

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::activity::ConnectionActivity;
use super::admission::{Admission, Bounds};
use super::monitored_io::MonitoredIo;
use super::refusal::HeadRefusals;
use super::request_scan::ContentLength;
use crate::lifecycle::Lifecycle;

/// Ends of lines that are not the right one.
const WRONG_ENDS: [&str; 4] = ["\n", "\r", "\r\r\n", "\n\r\n"];

/// A few requests, each with its framing or one that is slightly wrong. `X-Length`, behind the
/// framing, tells which have a `Content-Length`: hyper removes it beside a `Transfer-Encoding`.
fn requests(random: &mut fastrand::Rng) -> String {
    let mut input = String::new();
    for _ in 0..random.u8(1..5) {
        let mut line = |text: &str, input: &mut String| {
            input.push_str(text);
            input.push_str(if random.u8(..16) == 0 { WRONG_ENDS[random.usize(..4)] } else { "\r\n" });
            random.u8(..)
        };
        let kind = line("POST / HTTP/1.1", &mut input) % 4;
        if kind % 2 == 1 {
            line("Content-Length: 7", &mut input);
        }
        if kind >= 2 {
            line("Transfer-Encoding: chunked", &mut input);
        }
        line(["X-Length: 0", "X-Length: 1"][usize::from(kind % 2)], &mut input);
        let choice = line("", &mut input);
        if kind >= 2 {
            if choice % 2 == 0 {
                line("7;a=b", &mut input);
                line("GET / H", &mut input);
            }
            line("0", &mut input);
            for _ in 0..choice % 3 {
                line("Content-Length: 5", &mut input);
            }
            line("", &mut input);
        } else if kind == 1 {
            input.push_str("GET / H");
        }
    }
    input
}

/// Serves some input, and checks each request that hyper begins; returns their number.
async fn serve(input: &str, part: usize) -> usize {
    let activity =
        Arc::new(ConnectionActivity::new(Arc::new(Lifecycle::new(jiff::Timestamp::UNIX_EPOCH)), Arc::default()));
    let admission = Arc::new(Admission::new(Bounds { connections: 1, unidentified_bytes: 1 << 20 }));
    let (mut peer, stream) = duplex(1 << 16);
    let io = MonitoredIo::new(stream, Arc::clone(&activity), admission, 1 << 16, HeadRefusals::unrecorded());
    let begun = Cell::new(0);
    let service = service_fn(|request: Request<Incoming>| {
        begun.set(begun.get() + 1);
        let found = activity.heads().pop();
        let (head, body) = request.into_parts();
        let is_chunked = head.headers.contains_key(TRANSFER_ENCODING);
        let has_length = match head.headers.get("x-length") {
            Some(value) => value == "1",
            None if is_chunked => found == ContentLength::Present,
            None => head.headers.contains_key(CONTENT_LENGTH),
        };
        let expected = if has_length { ContentLength::Present } else { ContentLength::Absent };
        assert!(found == expected || found == ContentLength::Unknown, "{found:?} in {input:?} in parts of {part}");
        async move {
            // It may be malformed.
            let _ = body.collect().await;
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let serving = http1::Builder::new().serve_connection(TokioIo::new(io), service);
    let sending = async {
        for part in input.as_bytes().chunks(part) {
            if peer.write_all(part).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let _ = peer.shutdown().await;
        let mut answers = Vec::new();
        let _ = peer.read_to_end(&mut answers).await;
    };
    let (_, ()) = tokio::join!(serving, sending);
    begun.get()
}

#[tokio::test]
async fn the_heads_are_those_that_hyper_finds() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut begun = 0;
    for _ in 0..2000 {
        let input = requests(&mut random);
        begun += serve(&input, [1, 3, 16, 1000][random.usize(..4)]).await;
    }
    assert!(begun > 2000, "most heads are good: {begun}");
}
