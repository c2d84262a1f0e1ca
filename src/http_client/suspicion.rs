//! Judges whether the connections of a pool are dead though none has been closed, as after a fail-over that drops packets.
//!
//! A GET that hears nothing for a while, in which nothing arrives on any connection of the pool, is suspected: it is sent on a new
//! connection too, one such probe at a time. If the probe answers first, all connections opened before it are abandoned;
//! otherwise the upstream is merely slow, and all keep waiting. Probes that turn out needless are at most one for
//! [`REQUESTS_PER_PROBE`] requests in the long run, so a slow upstream has no more load to speak of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::stream::Arrivals;

/// Requests that earn one needless probe.
const REQUESTS_PER_PROBE: u32 = 50;
/// Most requests that are remembered for probes.
const MOST_CREDIT: u32 = 2 * REQUESTS_PER_PROBE;

/// The state of suspicion in one pool.
#[derive(Debug)]
pub(super) struct Suspicion {
    after: Duration,
    arrivals: Arc<Arrivals>,
    is_probing: AtomicBool,
    credit: AtomicU32,
    /// Connections with smaller numbers are abandoned.
    oldest: watch::Sender<u64>,
}

/// A probe in flight. The next one begins after it is dropped.
#[derive(Debug)]
pub(super) struct Probe<'a>(&'a Suspicion);

impl Suspicion {
    /// Begins without suspicion. Silence of `after` raises it.
    pub(super) fn new(after: Duration) -> Self {
        Self {
            after,
            arrivals: Arc::default(),
            is_probing: AtomicBool::new(false),
            credit: AtomicU32::new(REQUESTS_PER_PROBE),
            oldest: watch::Sender::new(0),
        }
    }

    /// Returns the record of what arrives, to which all connections add.
    pub(super) fn arrivals(&self) -> &Arc<Arrivals> {
        &self.arrivals
    }

    /// Counts a request, which earns a part of a probe.
    pub(super) fn count_request(&self) {
        let add = |credit: u32| (credit < MOST_CREDIT).then_some(credit + 1);
        let _ = self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Returns the moment at which a request that was sent at `sent` is suspected, if nothing arrives until then.
    pub(super) fn suspected_at(&self, sent: Instant) -> Instant {
        self.arrivals.last().max(sent) + self.after
    }

    /// Begins a probe, unless one is in flight or too many were needless.
    pub(super) fn begin_probe(&self) -> Option<Probe<'_>> {
        if self.is_probing.swap(true, Ordering::Relaxed) {
            return None;
        }
        let probe = Probe(self);
        let pay = |credit: u32| credit.checked_sub(REQUESTS_PER_PROBE);
        let paid = self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_ok();
        paid.then_some(probe)
    }

    /// Returns the number of the oldest connection that is not abandoned, and its changes.
    pub(super) fn oldest(&self) -> watch::Receiver<u64> {
        self.oldest.subscribe()
    }

    /// Returns true if the connection with this number is abandoned.
    pub(super) fn is_abandoned(&self, number: u64) -> bool {
        number < *self.oldest.borrow()
    }
}

impl Probe<'_> {
    /// Records that the probe was answered first on the connection `number`: all older ones are abandoned.
    pub(super) fn won(self, number: u64) {
        self.refund();
        self.0.oldest.send_modify(|oldest| *oldest = number.max(*oldest));
    }

    /// Gives the probe back: it was not needless, or not sent.
    pub(super) fn refund(&self) {
        self.0.credit.fetch_add(REQUESTS_PER_PROBE, Ordering::Relaxed);
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.is_probing.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needless_probes_are_few_and_one_at_a_time() {
        let suspicion = Suspicion::new(Duration::from_secs(1));
        let first = suspicion.begin_probe().expect("a pool begins with one");
        assert!(suspicion.begin_probe().is_none(), "one is in flight");
        first.won(7);
        assert!(suspicion.is_abandoned(6) && !suspicion.is_abandoned(7));
        drop(suspicion.begin_probe().expect("the first was not needless"));
        assert!(suspicion.begin_probe().is_none(), "the second was");
        let needless = (0..1000).filter(|_| {
            suspicion.count_request();
            suspicion.begin_probe().is_some()
        });
        assert_eq!(needless.count(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn what_arrives_on_any_connection_puts_suspicion_off() {
        let suspicion = Suspicion::new(Duration::from_secs(1));
        let sent = Instant::now();
        assert_eq!(suspicion.suspected_at(sent), sent + Duration::from_secs(1));
        tokio::time::advance(Duration::from_millis(400)).await;
        suspicion.arrivals().record();
        assert_eq!(suspicion.suspected_at(sent), sent + Duration::from_millis(1400));
        assert_eq!(suspicion.suspected_at(sent + Duration::from_secs(9)), sent + Duration::from_secs(10));
    }
}
