//! What is done at Refold on somebody's behalf, as those who watch see it: one call for each thing that happens, which goes
//! into the metrics, the log line and the trace.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, Request};

use crate::caller::Caller;
use crate::clock::{Clock, Moment};
use crate::error::ClientError;
use crate::limit::Urgency;
use crate::observe::{Observer, Span, SpanContext, TenantMetrics, UpstreamOutcome};

/// Everything that is asked of Refold for one request, or to renew one entry.
#[derive(Debug)]
pub struct UpstreamTelemetry {
    observer: Arc<Observer>,
    tenant: Arc<TenantMetrics>,
    span: Span,
    spent: Arc<UpstreamCost>,
}

/// What a trip has cost so far.
#[derive(Debug, Default)]
pub struct UpstreamCost {
    attempts: AtomicU32,
    /// In nanoseconds.
    upstream: AtomicU64,
}

impl UpstreamCost {
    /// The time in which Refold was asked; `None` if it was not.
    #[must_use]
    pub fn upstream(&self) -> Option<Duration> {
        (self.attempts.load(Ordering::Relaxed) > 0).then(|| Duration::from_nanos(self.upstream.load(Ordering::Relaxed)))
    }
}

impl UpstreamTelemetry {
    /// Starts recording what one request asks of the upstream.
    pub fn new(observer: Arc<Observer>, caller: &Caller, request: &Span, headers: &HeaderMap) -> Self {
        let below = request.child();
        let span = if below.context().is_some() { below } else { Span::propagated(headers) };
        Self { tenant: observer.tenant_metrics(caller.tenant()), observer, span, spent: Arc::default() }
    }

    /// It is made. A trip that turns out not to be needed is never told of.
    pub fn begin(&mut self, name: &'static str) {
        self.span.begin(name);
    }

    /// How others point at it.
    #[must_use]
    pub fn context(&self) -> Option<SpanContext> {
        self.span.context()
    }

    /// What it has cost, also while it is under way.
    #[must_use]
    pub fn spent(&self) -> &Arc<UpstreamCost> {
        &self.spent
    }

    /// Another one that is made on its way; it costs the same request.
    #[must_use]
    pub fn below(&self) -> Self {
        Self {
            observer: Arc::clone(&self.observer),
            tenant: Arc::clone(&self.tenant),
            span: self.span.child(),
            spent: Arc::clone(&self.spent),
        }
    }

    /// It waits for what another one brings.
    pub fn waits_for(&mut self, other: Option<SpanContext>) {
        self.span.begin("wait");
        if let Some(other) = other {
            self.span.describe(|span| span.link(other));
        }
    }

    /// It is over.
    pub fn ended<T>(mut self, outcome: &Result<T, ClientError>) {
        if let Err(error) = outcome {
            self.span.describe(|span| span.failed(error.label()));
        }
    }

    /// It waits for the org key's budget.
    pub fn waits(&self) -> BudgetWait<'_> {
        let mut span = self.span.child();
        span.begin("budget");
        BudgetWait { trip: self, since: self.clock().now(), span }
    }

    /// A request is sent.
    pub fn attempt<B>(&self, request: &mut Request<B>) -> Attempt<'_> {
        let before = self.spent.attempts.fetch_add(1, Ordering::Relaxed);
        let mut span = self.span.client_child();
        span.begin("attempt");
        span.describe(|span| {
            span.name(request.method().to_string());
            span.attribute("http.request.method", request.method().as_str());
            if before > 0 {
                span.attribute("http.request.resend_count", before);
            }
        });
        span.inject(request.headers_mut());
        self.observer.metrics.upstream_in_flight.inc();
        Attempt { trip: self, since: self.clock().now(), span }
    }

    /// What was asked is asked again.
    pub fn retried(&self) {
        self.tenant.retried();
    }

    /// The circuit to Refold has opened.
    pub fn circuit_opened(&self) {
        self.observer.metrics.circuit_opened.inc();
    }

    fn clock(&self) -> &Clock {
        &self.observer.clock
    }
}

/// A wait for the budget.
#[derive(Debug)]
pub struct BudgetWait<'a> {
    trip: &'a UpstreamTelemetry,
    since: Moment,
    span: Span,
}

impl BudgetWait<'_> {
    /// It is over: the budget has granted the request or refused it, with the urgency that it had in the end.
    pub fn ended<E>(mut self, urgency: Urgency, granted: &Result<(), E>) {
        let waited = self.trip.clock().now().since(self.since);
        self.trip.tenant.waited_for_budget(urgency, granted.is_ok(), waited);
        if granted.is_err() {
            self.span.describe(|span| span.failed("refused"));
        }
    }

    /// Nobody wants to know any longer.
    pub fn given_up(mut self) {
        self.span.describe(|span| span.failed("nobody_waits"));
    }
}

/// A request on its way. Dropped before it has ended, it counts as nothing but is no longer in flight.
#[derive(Debug)]
pub struct Attempt<'a> {
    trip: &'a UpstreamTelemetry,
    since: Moment,
    span: Span,
}

impl Attempt<'_> {
    /// It was answered, or was not.
    pub fn ended(mut self, outcome: UpstreamOutcome) {
        let took = self.trip.clock().now().since(self.since);
        self.trip.tenant.asked_upstream(outcome, took);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.trip.spent.upstream.fetch_add(nanos, Ordering::Relaxed);
        self.span.describe(|span| match outcome {
            UpstreamOutcome::Answered(status) => {
                span.attribute("http.response.status_code", status.as_u16());
                if status.is_client_error() || status.is_server_error() {
                    span.failed(status.as_str());
                }
            }
            UpstreamOutcome::Failed(_) => span.failed(outcome.name()),
        });
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.trip.observer.metrics.upstream_in_flight.dec();
    }
}
