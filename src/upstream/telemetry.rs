//! Records the requests to Refold of one request or renewal: in the metrics, in the trace, and as the upstream time of the
//! access log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, Request};

use crate::caller::Caller;
use crate::clock::{Clock, Moment};
use crate::error::ClientError;
use crate::executions::DerivationKind;
use crate::limit::Urgency;
use crate::log_events;
use crate::observe::{ComparisonResult, FailedRenewal, Observer, Span, SpanContext, TenantMetrics, UpstreamOutcome};
use crate::request::method::method_name;

/// Records the work of one request or renewal at Refold: a span with a child for each wait and attempt.
///
/// A span that never begins is not exported, for example the span of a fetch that turns out to be unnecessary.
#[derive(Debug)]
pub struct UpstreamTelemetry {
    observer: Arc<Observer>,
    tenant: Arc<TenantMetrics>,
    span: Span,
    cost: Arc<UpstreamCost>,
}

/// The time that a request has spent at Refold so far.
#[derive(Debug, Default)]
pub struct UpstreamCost {
    attempts: AtomicU32,
    nanoseconds: AtomicU64,
}

impl UpstreamCost {
    /// Returns the time from the start of each attempt to its end, summed up; `None` if there was no attempt.
    #[must_use]
    pub fn duration(&self) -> Option<Duration> {
        let attempted = self.attempts.load(Ordering::Relaxed) > 0;
        attempted.then(|| Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)))
    }
}

impl UpstreamTelemetry {
    /// Prepares a span below a request's. If the request is not recorded, attempts forward the trace headers of the request.
    pub fn new(observer: Arc<Observer>, caller: &Caller, request: &Span, headers: &HeaderMap) -> Self {
        let below = request.child();
        let span = if below.context().is_some() { below } else { Span::propagated(headers) };
        Self { tenant: observer.tenant_metrics(caller.tenant()), observer, span, cost: Arc::default() }
    }

    /// Prepares a span below this one, for work that adds to the cost of the same request.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            observer: Arc::clone(&self.observer),
            tenant: Arc::clone(&self.tenant),
            span: self.span.child(),
            cost: Arc::clone(&self.cost),
        }
    }

    /// Prepares a span for work in the background, which adds to the cost of no request.
    #[must_use]
    pub fn background(&self) -> Self {
        Self { cost: Arc::default(), ..self.child() }
    }

    /// Counts a comparison of a derived response with a fetched one.
    pub fn count_comparison(&self, result: ComparisonResult) {
        self.tenant.compared(result);
    }

    /// Counts that a kind of derivation was put out of use.
    pub fn count_contradiction(&self, kind: DerivationKind) {
        self.tenant.contradicted(kind);
    }

    /// Counts that a stale page could not be fetched anew.
    pub fn count_failed_renewal(&self, error_code: &'static str) {
        self.tenant.failed_renewal(error_code);
    }

    /// Shows a failed renewal on the status page.
    pub fn show_failed_renewal(&self, failed: &FailedRenewal<'_>) {
        self.observer.recent().renewal_failed(failed);
    }

    /// Begins the span under this name, or renames it if it has begun.
    pub fn begin(&mut self, name: &'static str) {
        self.span.begin(name);
    }

    /// Begins the span as a wait for another fetch, to which it links.
    pub fn begin_wait(&mut self, fetch: Option<SpanContext>) {
        self.span.begin("wait");
        if let Some(fetch) = fetch {
            self.span.describe(|span| span.link(fetch));
        }
    }

    /// Ends the span, as failed if there is an error.
    pub fn end<T>(mut self, result: &Result<T, ClientError>) {
        if let Err(error) = result {
            self.span.describe(|span| span.failed(error.label()));
        }
    }

    /// Returns the span's context, to which other spans link; `None` if it is not recorded.
    #[must_use]
    pub fn context(&self) -> Option<SpanContext> {
        self.span.context()
    }

    /// Returns the cost, which grows while the work goes on.
    #[must_use]
    pub fn cost(&self) -> &Arc<UpstreamCost> {
        &self.cost
    }

    /// Begins a wait for the org key's budget.
    pub(super) fn budget_wait(&self) -> BudgetWait<'_> {
        let mut span = self.span.child();
        span.begin("budget");
        BudgetWait { telemetry: self, start: self.clock().now(), span }
    }

    /// Begins an attempt, and puts its trace headers into the request.
    pub(super) fn attempt<B>(&self, request: &mut Request<B>) -> Attempt<'_> {
        let earlier_attempts = self.cost.attempts.fetch_add(1, Ordering::Relaxed);
        let mut span = self.span.client_child();
        span.begin("attempt");
        span.describe(|span| {
            let method = method_name(request.method());
            span.name(method);
            span.attribute("http.request.method", method);
            if earlier_attempts > 0 {
                span.attribute("http.request.resend_count", i64::from(earlier_attempts));
            }
        });
        span.inject(request.headers_mut());
        self.observer.metrics.upstream_in_flight.inc();
        Attempt { telemetry: self, start: self.clock().now(), span }
    }

    /// Counts a retry.
    pub(super) fn count_retry(&self) {
        self.tenant.retried();
    }

    /// Counts that a tenant's circuit to Refold opened.
    pub(super) fn count_opened_circuit(&self, tenant: &str) {
        self.observer.metrics.circuit_opened.with_label_values(&[tenant]).inc();
        self.observer.event(log_events::UPSTREAM_CIRCUIT_OPENED, Some(tenant), String::new());
    }

    fn clock(&self) -> &Clock {
        &self.observer.clock
    }
}

/// A wait for the org key's budget.
#[derive(Debug)]
pub(super) struct BudgetWait<'a> {
    telemetry: &'a UpstreamTelemetry,
    start: Moment,
    span: Span,
}

impl BudgetWait<'_> {
    /// Ends the wait with the budget's decision, and the urgency that the fetch had in the end.
    pub(super) fn end<T, E>(mut self, urgency: Urgency, granted: &Result<T, E>) {
        let waited = self.telemetry.clock().now().since(self.start);
        self.telemetry.tenant.waited_for_budget(urgency, granted.is_ok(), waited);
        if granted.is_err() {
            self.span.describe(|span| span.failed("refused"));
        }
    }

    /// Ends the wait of a fetch that is no longer in demand.
    pub(super) fn abandon(mut self) {
        self.span.describe(|span| span.failed("nobody_waits"));
    }
}

/// A request in flight. If it is dropped before [`Attempt::end`], only the number of requests in flight changes.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    telemetry: &'a UpstreamTelemetry,
    start: Moment,
    span: Span,
}

impl Attempt<'_> {
    /// Ends the attempt with its outcome.
    pub(super) fn end(mut self, outcome: UpstreamOutcome) {
        let duration = self.telemetry.clock().now().since(self.start);
        self.telemetry.tenant.asked_upstream(outcome, duration);
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.telemetry.cost.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        self.span.describe(|span| match outcome {
            UpstreamOutcome::Answered(status) => {
                span.attribute("http.response.status_code", i64::from(status.as_u16()));
                if status.is_client_error() || status.is_server_error() {
                    span.failed(status.as_str().to_owned());
                }
            }
            UpstreamOutcome::Failed(_) => span.failed(outcome.name()),
        });
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.telemetry.observer.metrics.upstream_in_flight.dec();
    }
}
