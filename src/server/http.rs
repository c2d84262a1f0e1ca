//! HTTP over one connection: HTTP/1.1 or, by prior knowledge, HTTP/2 (RFC 9113, 3.3).
//!
//! hyper keeps its buffers, about 20 KB, for as long as its connection exists. So a connection that waits for a request has none of
//! hyper's: it is made when the first bytes arrive, and an HTTP/1.1 connection that stays idle gives it up until the next request.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::activity::{ConnectionActivity, DrainPhase};
use super::monitored_io::{CONNECTION_WINDOW, MonitoredIo, STREAM_WINDOW};
use super::service::GatewayService;
use crate::config;

/// The first bytes of an HTTP/2 connection (RFC 9113, 3.4).
const HTTP_2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Streams that one HTTP/2 connection can have open at once.
const MAX_STREAMS: u32 = 256;
/// Most bytes of an HTTP/2 request's fields, or more if the configured limits are large. h2 answers larger ones itself, without
/// the documented body.
const LARGEST_FIELDS: u32 = 128 << 10;
/// Bytes that are read before hyper's connection is made: most request heads are smaller.
const FIRST_READ: usize = 2048;

/// The settings of both protocols.
#[derive(Debug)]
pub(super) struct HttpSettings {
    http_1: http1::Builder,
    http_2: http2::Builder<TokioExecutor>,
    /// Most bytes of a request head that a connection keeps.
    pub(super) largest_head: usize,
}

impl HttpSettings {
    pub(super) fn new(settings: &config::ServerConfig) -> Self {
        // Twice the configured limits: the gateway enforces those itself, with responses of the documented shape.
        let largest_head = 2 * (settings.max_header_size.as_usize() + settings.max_uri_length.as_usize());
        let largest_head = largest_head.max(16 * 1024);
        let mut http_1 = http1::Builder::new();
        // The monitor enforces the header timeout, without a timer per request.
        http_1.header_read_timeout(None).max_buf_size(largest_head);
        let mut http_2 = http2::Builder::new(TokioExecutor::new());
        http_2
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_stream_window_size(STREAM_WINDOW)
            .keep_alive_interval(settings.header_timeout)
            .keep_alive_timeout(settings.header_timeout)
            .max_header_list_size(u32::try_from(largest_head).unwrap_or(u32::MAX).max(LARGEST_FIELDS));
        Self { http_1, http_2, largest_head }
    }

    /// Serves a connection until the peer or the monitor ends it.
    pub(super) async fn serve<S>(
        &self,
        mut io: MonitoredIo<S>,
        mut service: GatewayService,
        activity: &Arc<ConnectionActivity>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut first = match first_bytes(&mut io, activity).await {
            FirstBytes::Read(first) => first,
            FirstBytes::End => return close(io, activity).await,
        };
        if first.starts_with(HTTP_2_PREFACE) {
            io.begin_http_2(&first);
            let connection = self.http_2.serve_connection(TokioIo::new(Resumed { first, io }), service);
            drive(pin!(connection), activity, http2::Connection::graceful_shutdown).await;
            return;
        }
        loop {
            let connection = self.http_1.serve_connection(TokioIo::new(Resumed { first, io }), service);
            // On the heap, so that a connection at rest does not keep the room.
            let mut connection = Box::new(connection);
            let end = drive(Pin::new(&mut *connection), activity, http1::Connection::graceful_shutdown).await;
            if end == End::Closed {
                return;
            }
            let parts = connection.into_parts();
            let resumed = parts.io.into_inner();
            (io, service) = (resumed.io, parts.service);
            // The beginning of a head that arrived with the previous request.
            first = [parts.read_buf, resumed.first].concat().into();
            if first.is_empty() {
                activity.footprint().release_buffers();
                first = match first_bytes(&mut io, activity).await {
                    FirstBytes::Read(first) => first,
                    FirstBytes::End => return close(io, activity).await,
                };
            }
        }
    }
}

/// The end of [`drive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The connection is closed.
    Closed,
    /// The connection is idle and has written everything.
    Idle,
}

/// Polls a connection of hyper's until it is closed or idle, and shuts it down when its phase says so.
async fn drive<C: Future>(
    mut connection: Pin<&mut C>,
    activity: &ConnectionActivity,
    shut_down: fn(Pin<&mut C>),
) -> End {
    let mut shutting_down = false;
    let mut registered = None;
    poll_fn(|context| {
        register(activity, &mut registered, context);
        activity.begin_turn();
        // Read after the waker is registered: a phase is either seen here or wakes this task.
        let phase = activity.phase();
        let is_to_shut_down = match phase {
            // HTTP/2 is shut down at once, since GOAWAY loses no request. HTTP/1.1 announces it in the next response.
            DrainPhase::Closing => activity.takes_goaway(),
            DrainPhase::Draining => true,
            // After a graceful shutdown hyper would no longer read, and so not find the end of the input.
            DrainPhase::Serving | DrainPhase::InputEnded | DrainPhase::Dropped => false,
        };
        if is_to_shut_down && !shutting_down {
            shutting_down = true;
            shut_down(connection.as_mut());
        }
        // A connection error concerns only the peer, which knows it. A dropped connection is polled once more, which writes a
        // response that has just become ready.
        if connection.as_mut().poll(context).is_ready() || phase == DrainPhase::Dropped {
            return Poll::Ready(End::Closed);
        }
        if activity.takes_rest() { Poll::Ready(End::Idle) } else { Poll::Pending }
    })
    .await
}

/// Has each new phase of a connection wake this task.
fn register(activity: &ConnectionActivity, registered: &mut Option<Waker>, context: &Context<'_>) {
    if !registered.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
        activity.set_waker(context.waker());
        *registered = Some(context.waker().clone());
    }
}

/// The first bytes of a connection, or of a request after a rest.
enum FirstBytes {
    Read(Bytes),
    /// The peer has ended its output, or the connection is to accept no further requests.
    End,
}

/// Reads the first bytes: as many as tell the protocol.
async fn first_bytes<S>(io: &mut MonitoredIo<S>, activity: &ConnectionActivity) -> FirstBytes
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut read = Vec::new();
    let mut registered = None;
    poll_fn(|context| {
        register(activity, &mut registered, context);
        loop {
            match activity.phase() {
                DrainPhase::Draining | DrainPhase::Dropped => return Poll::Ready(FirstBytes::End),
                DrainPhase::Serving | DrainPhase::Closing | DrainPhase::InputEnded => {}
            }
            let mut bytes = [0; FIRST_READ];
            let mut buffer = ReadBuf::new(&mut bytes);
            let result = ready!(Pin::new(&mut *io).poll_read(context, &mut buffer));
            if result.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(FirstBytes::End);
            }
            read.extend_from_slice(buffer.filled());
            if read.len() >= HTTP_2_PREFACE.len() || !HTTP_2_PREFACE.starts_with(&read) {
                return Poll::Ready(FirstBytes::Read(std::mem::take(&mut read).into()));
            }
        }
    })
    .await
}

/// Closes a connection without a request in flight, until the peer has closed it too or the monitor drops it.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(mut io: MonitoredIo<S>, activity: &ConnectionActivity) {
    // An error concerns only the peer, which knows it.
    drop(until_phase(DrainPhase::Dropped, activity, io.shutdown()).await);
}

/// Polls a future until its connection reaches a phase; returns `None` if the phase comes first.
pub(super) async fn until_phase<F: Future>(
    phase: DrainPhase,
    activity: &ConnectionActivity,
    future: F,
) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| {
        activity.set_waker(context.waker());
        if activity.phase() >= phase {
            return Poll::Ready(None);
        }
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// A socket of which the first bytes were read already.
#[derive(Debug)]
struct Resumed<S> {
    first: Bytes,
    io: MonitoredIo<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Resumed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let length = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Resumed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
