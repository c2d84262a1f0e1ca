//! The requests of one connection, passed to the active gateway. Part of the hit path.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{CONNECTION, EXPECT, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Response, Version};
use hyper::body::{Body as _, Incoming};
use hyper::service::Service;
use tokio::sync::watch;
use tokio::task::yield_now;

use super::activity::{ConnectionActivity, InFlight};
use super::counted_body::CountedBody;
use super::request_scan::ContentLength;
use crate::executions::QueryMemo;
use crate::gateway::{ConnectionContext, Handled};
use crate::generation::{ActiveGeneration, ConnectionOrigin};
use crate::request::body::{CallerBody, ContentGuard, UnreadContent};
use crate::request::route::RemovedContentLength;
use crate::respond::Body;

/// Passes the requests of one connection to the active gateway.
pub(super) struct GatewayService {
    active: Arc<ActiveGeneration>,
    origin: ConnectionOrigin,
    activity: Arc<ConnectionActivity>,
    /// The connection's context in a generation, with that generation's number.
    context: RefCell<(u64, ConnectionContext)>,
}

impl GatewayService {
    /// Serves a connection. `abandon` becomes true when the drain timeout is over.
    pub(super) fn new(
        active: &Arc<ActiveGeneration>,
        origin: ConnectionOrigin,
        activity: Arc<ConnectionActivity>,
        query_memo: Arc<QueryMemo>,
        abandon: watch::Receiver<bool>,
    ) -> Self {
        let generation = active.load();
        let known_caller = activity.footprint().known_caller().clone();
        let context = generation.connection_context(&origin, query_memo, abandon, known_caller);
        let context = context.with_half_close(activity.peer_half_closed());
        let context = RefCell::new((generation.number(), context));
        Self { active: Arc::clone(active), origin, activity, context }
    }

    /// An HTTP/1.1 request with content: the connection reads it before the next request.
    fn with_content(&self, mut request: Request<Incoming>, length: ContentLength) -> Request<CallerBody> {
        if length == ContentLength::Present && is_chunked(&request) {
            request.extensions_mut().insert(RemovedContentLength);
        }
        // A client that expects 100 (Continue) sends no content once it has another response.
        let expects = request.headers().contains_key(EXPECT);
        let unread = if expects { UnreadContent::Left } else { UnreadContent::Discarded };
        let guard: ContentGuard = Box::new(self.activity.begin_content());
        request.map(|content| CallerBody::new(content, Some(guard), unread))
    }
}

impl Service<Request<Incoming>> for GatewayService {
    type Response = Response<CountedBody>;
    type Error = Infallible;
    type Future = ResponseFuture;

    /// Begins a request.
    fn call(&self, request: Request<Incoming>) -> ResponseFuture {
        let in_flight = self.activity.begin_request();
        let http_1 = request.version() < Version::HTTP_2;
        let length = if http_1 { self.activity.heads().pop() } else { ContentLength::Absent };
        // What follows a request with both framings may be smuggled in, so the connection ends (RFC 9112, 6.3).
        let may_have_both = length != ContentLength::Absent && is_chunked(&request);
        let request = if http_1 && !request.body().is_end_stream() {
            self.with_content(request, length)
        } else {
            request.map(|content| CallerBody::new(content, None, UnreadContent::Left))
        };
        let generation = self.active.load();
        let mut context = self.context.borrow_mut();
        if context.0 != generation.number() {
            // The active configuration gives the connection its identity, not the one under which it was accepted.
            let ConnectionContext { query_memo, abandon, known_caller, .. } = context.1.clone();
            let renewed = generation.connection_context(&self.origin, query_memo, abandon, known_caller);
            *context = (generation.number(), renewed.with_half_close(self.activity.peer_half_closed()));
        }
        let response = match generation.gateway.handle(&context.1, request) {
            Handled::Response(response) => PendingResponse::Ready(response),
            Handled::Unfinished(request) => {
                let held = self.activity.hold_fields(request.header_fields());
                let response = Arc::clone(&generation.gateway).finish(request);
                PendingResponse::Waiting(Box::pin(async move {
                    let _held = held;
                    response.await
                }))
            }
        };
        // In HTTP/2 each response is awaited in a task of its own.
        let response = if http_1 && self.activity.exceeds_turn() { response.in_next_turn() } else { response };
        ResponseFuture { pending: Some((response, in_flight)), http_1, may_have_both }
    }
}

fn is_chunked(request: &Request<Incoming>) -> bool {
    request.headers().contains_key(TRANSFER_ENCODING)
}

/// A response that is complete, or one that the gateway is still working on.
enum PendingResponse {
    Ready(Response<Body>),
    Waiting(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

impl PendingResponse {
    /// Waits until the worker's other tasks have had a turn and it has looked at its sockets.
    fn in_next_turn(self) -> Self {
        Self::Waiting(Box::pin(async move {
            yield_now().await;
            match self {
                Self::Ready(response) => response,
                Self::Waiting(response) => response.await,
            }
        }))
    }
}

/// Resolves to the response to one request.
pub(super) struct ResponseFuture {
    /// `None` once it has resolved.
    pending: Option<(PendingResponse, InFlight)>,
    http_1: bool,
    /// The head may have both a `Content-Length` and a `Transfer-Encoding`.
    may_have_both: bool,
}

impl ResponseFuture {
    fn respond(&self, response: Response<Body>, mut in_flight: InFlight) -> Response<CountedBody> {
        in_flight.record_response();
        let is_last = self.may_have_both || in_flight.is_last();
        let mut response = response.map(|body| CountedBody::new(body, in_flight));
        // The client then sends its next request over a new connection, to the process that listens by then (RFC 9112, 9.6).
        if self.http_1 && is_last {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<CountedBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.pending.take() {
            Some((PendingResponse::Ready(response), in_flight)) => Poll::Ready(Ok(self.respond(response, in_flight))),
            Some((PendingResponse::Waiting(mut response), in_flight)) => match response.as_mut().poll(cx) {
                Poll::Ready(response) => Poll::Ready(Ok(self.respond(response, in_flight))),
                Poll::Pending => {
                    self.pending = Some((PendingResponse::Waiting(response), in_flight));
                    Poll::Pending
                }
            },
            // Polled after it resolved: stays pending, as futures do.
            None => Poll::Pending,
        }
    }
}
