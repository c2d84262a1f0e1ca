//! What is told of requests: everything that a step decided, once the answer is there. Metrics (`metrics`, `scrape`), one
//! log line a request (`access_log`, `lines`), traces (`trace`), what is going on at this moment (`live`), and what is done at
//! Refold on their behalf (`trip`).

mod access_log;
mod latency;
mod log_writer;
mod metrics;
mod recent;
mod scrape;
mod stripe;
mod traces;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Method, StatusCode};

pub use self::access_log::{TARGET, log_requests_to};
pub use self::latency::Quantiles;
pub use self::log_writer::{LogWriter, Writing};
pub(crate) use self::metrics::TenantMetrics;
pub use self::metrics::{DECLARED, Declared, UpstreamOutcome, WebhookOutcome};
use self::metrics::{Metrics, Requests};
pub use self::recent::{Latency, RecentActivity, RecentError, Traffic};
pub use self::scrape::State;
pub use self::traces::{Context, Span, TraceId, Tracer};
use crate::cache::{CacheKey, CacheOutcome};
use crate::caller::{Authenticated, Caller};
use crate::clock::{Clock, Moment};
use crate::config;
use crate::http_client::ClientSetupError;
use crate::request::RequestId;
use crate::request::route::Resource;
use crate::tenant::Tenant;

/// What is known of a request once it is answered.
#[derive(Debug)]
pub struct AccessRecord<'a> {
    /// Names it.
    pub request_id: RequestId,
    /// Its method.
    pub method: &'a Method,
    /// What it was about.
    pub resource: Resource,
    /// Who sent it, once that was known.
    pub who: Option<Who<'a>>,
    /// What it asked, if that is a thing to be cached.
    pub key: Option<&'a CacheKey>,
    /// The canonical form of that, if it is written out already.
    pub canonical: Option<&'a str>,
    /// The status of its answer.
    pub status: StatusCode,
    /// Why it was refused or failed.
    pub error_code: Option<&'a str>,
    /// The same, of a bounded number of texts: see [`crate::error::ClientError::label`].
    pub error_label: Option<&'static str>,
    /// What the cache did.
    pub cache: CacheOutcome,
    /// How old the answer was.
    pub age: Option<Duration>,
    /// When that was.
    pub at: Moment,
    /// From its head to the head of its answer.
    pub duration: Duration,
    /// How much of that Refold took, if it was asked for this request.
    pub upstream: Option<Duration>,
    /// The trace that it is in, if it is recorded.
    pub trace: Option<TraceId>,
}

/// Who has sent a request.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// Their org.
    pub tenant: &'a Tenant,
    /// Their name in logs.
    pub name: &'a str,
    /// For whom they ask, if they may and it is known.
    pub linked_account: Option<&'a str>,
}

impl<'a> From<&'a Caller> for Who<'a> {
    fn from(caller: &'a Caller) -> Self {
        let linked_account = caller.partition().linked_account_id();
        Self { tenant: caller.tenant(), name: caller.name(), linked_account }
    }
}

impl<'a> From<&'a Authenticated> for Who<'a> {
    fn from(known: &'a Authenticated) -> Self {
        Self { tenant: &known.tenant, name: known.credential.name(), linked_account: None }
    }
}

/// Whoever watches. One for the process: it goes on when the configuration is read again.
#[derive(Debug)]
pub struct Observer {
    live: RecentActivity,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    /// Requests of whom nobody knows whose they are.
    nobody: Requests,
    /// By [`Tenant::interned_id`].
    tenants: ArcSwap<Vec<Option<Arc<TenantMetrics>>>>,
    scraping: Mutex<()>,
}

impl Observer {
    /// Somebody who has seen nothing yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let metrics = Arc::new(Metrics::new());
        Self {
            live: RecentActivity::default(),
            nobody: Requests::new(&metrics, "".into()),
            tenants: ArcSwap::default(),
            scraping: Mutex::default(),
            metrics,
            clock,
        }
    }

    /// A request was answered. Part of the hit path.
    pub fn answered(&self, log: &config::Log, record: &AccessRecord<'_>) {
        self.live.answered(record);
        match record.who {
            None => count(&self.nobody, record),
            Some(Who { tenant, .. }) => match self.tenants.load().get(tenant.interned_id()) {
                Some(Some(known)) => count(&known.requests, record),
                _ => count(&self.of(tenant).requests, record),
            },
        }
        access_log::log(log, &self.clock, record);
    }

    /// What is going on.
    #[must_use]
    pub fn live(&self) -> &RecentActivity {
        &self.live
    }

    /// A webhook's delivery was taken or refused.
    pub fn webhook(&self, tenant: &Tenant, outcome: WebhookOutcome) {
        self.of(tenant).webhook(outcome);
    }

    /// An entry had to make room for others.
    pub fn evicted(&self) {
        self.metrics.cache_evictions.inc();
    }

    /// A connection of a caller is open, for as long as what is returned.
    pub fn connection(self: &Arc<Self>) -> Connected {
        self.metrics.connections.inc();
        Connected(Arc::clone(self))
    }

    /// Traces requests as the configuration says.
    ///
    /// # Errors
    /// If the collector can't be reached in the way that it says.
    pub fn tracer(&self, traces: &config::Traces) -> Result<Tracer, ClientSetupError> {
        Tracer::start(traces, self.clock.clone(), self.metrics.spans_dropped.clone())
    }

    /// What is counted for a tenant. One of the same id goes on with what the one before it had.
    pub(crate) fn of(&self, tenant: &Tenant) -> Arc<TenantMetrics> {
        let number = tenant.interned_id();
        if let Some(Some(known)) = self.tenants.load().get(number) {
            return Arc::clone(known);
        }
        let new = Arc::new(TenantMetrics::new(&self.metrics, Arc::clone(&tenant.config.id)));
        // Another one for the same tenant would count into the same metrics: it does not matter which of them stays.
        self.tenants.rcu(|known| {
            let mut all = Vec::clone(known);
            all.resize(all.len().max(number + 1), None);
            all[number].get_or_insert_with(|| Arc::clone(&new));
            all
        });
        new
    }
}

fn count(requests: &Requests, record: &AccessRecord<'_>) {
    requests.answered(record.resource, record.status, record.cache, record.duration);
    if let Some(code) = record.error_label {
        requests.failed(code);
    }
}

/// A connection that is open.
#[derive(Debug)]
pub struct Connected(Arc<Observer>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
    }
}
