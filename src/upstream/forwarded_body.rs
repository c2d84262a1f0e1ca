//! The body of a pass-through response: streamed to the caller without trailers, and ended with an error before it contains a
//! whole org key.
//!
//! A task reads it from Refold, so that the connection is not kept for a caller that does not read.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::key_scan::KeyScan;
use crate::http_client::{BodyError, ResponseBody};
use crate::offload;

/// A part of a body; `None` after the last.
type Part = Option<Result<Bytes, BodyError>>;

/// A response body on its way to a caller.
#[derive(Debug)]
pub struct ForwardedBody {
    parts: mpsc::Receiver<Part>,
    left: SizeHint,
}

/// Reads a response body from Refold, and searches it for the tenant's org keys.
pub(super) struct BodyReader {
    body: ResponseBody,
    /// `None` if the caller has the key itself, or there is no body.
    scan: Option<KeyScan>,
    parts: mpsc::Sender<Part>,
}

/// Makes the two ends of a body.
pub(super) fn forwarded(body: ResponseBody, scan: Option<KeyScan>) -> (BodyReader, ForwardedBody) {
    let left = body.size_hint();
    let (sender, receiver) = mpsc::channel(1);
    (BodyReader { body, scan, parts: sender }, ForwardedBody { parts: receiver, left })
}

impl BodyReader {
    /// Reads the body to its end. Stops if the caller reads nothing for `patience`, or has disconnected; the caller's end then
    /// ends with an error.
    pub(super) async fn run(mut self, patience: Duration) {
        loop {
            let Ok(Ok(place)) = timeout(patience, self.parts.reserve()).await else { return };
            let frame = tokio::select! {
                frame = self.body.frame() => frame,
                () = self.parts.closed() => return,
            };
            let part = match frame {
                None => None,
                Some(Err(error)) => Some(Err(error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Some(checked(&mut self.scan, data).await),
                    // A recipient may discard trailers (RFC 9110, 6.5.1), which could contain an org key.
                    Err(_trailers) => continue,
                },
            };
            let is_last = !matches!(part, Some(Ok(_)));
            place.send(part);
            if is_last {
                return;
            }
        }
    }
}

/// Searches a piece of a body; off the worker's thread if that is much work.
async fn checked(scan: &mut Option<KeyScan>, data: Bytes) -> Result<Bytes, BodyError> {
    let Some(mut search) = scan.take() else { return Ok(data) };
    let is_heavy = search.is_heavy(&data);
    let work = move || {
        let result = search.pass(&data);
        (search, result.map(|()| data))
    };
    let (search, result) = if is_heavy { offload::run(work).await } else { work() };
    *scan = Some(search);
    Ok(result?)
}

impl Body for ForwardedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let part = match ready!(self.parts.poll_recv(cx)) {
            Some(part) => part,
            None => Some(Err("the response was not read in time".into())),
        };
        if let (Some(Ok(data)), Some(left)) = (&part, self.left.exact()) {
            self.left = SizeHint::with_exact(left.saturating_sub(data.len() as u64));
        }
        Poll::Ready(part.map(|part| part.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        // Always false, so that the end of the other side is noticed.
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.left
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use super::*;
    use crate::offload::testing::offloads;

    /// Accepts all pieces but those that begin with `!`.
    struct Decoder;

    impl Write for Decoder {
        fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
            if piece.starts_with(b"!") { Err(io::Error::other("refused")) } else { Ok(piece.len()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_piece_of_a_coded_body_is_decoded_off_the_thread() {
        let mut scan = Some(KeyScan::Coded(Box::new(Decoder)));
        // Also a small piece: it may become a large one.
        for piece in [vec![b' '], vec![b' '; 1000], vec![b' '; 100_000]] {
            let (offloaded, passed) = offloads(checked(&mut scan, piece.clone().into()));
            assert!(offloaded, "{} bytes", piece.len());
            assert_eq!(passed.expect("it passes"), piece);
        }
        let (_, refused) = offloads(checked(&mut scan, Bytes::from_static(b"!")));
        assert!(refused.is_err());
        assert!(scan.is_some(), "the search goes on with the next piece");
    }

    #[test]
    fn a_body_without_a_search_is_passed_on_at_once() {
        let (offloaded, passed) = offloads(checked(&mut None, vec![b' '; 100_000].into()));
        assert!(!offloaded && passed.is_ok_and(|data| data.len() == 100_000));
    }
}
