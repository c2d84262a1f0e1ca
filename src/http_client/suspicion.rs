//! Judges whether the connections of a pool are dead though none has been closed, as after a fail-over that drops packets.
//!
//! A GET that hears nothing for a while, in which nothing arrives on any connection of the pool that was open when it was sent, is
//! suspected: it is sent on a new connection too, one such probe at a time. What arrives on connections that were opened later
//! says nothing about the older ones. If the probe answers first, those older connections are abandoned; otherwise the upstream
//! is merely slow, and all keep waiting. Probes that turn out needless are at most one for [`REQUESTS_PER_PROBE`] requests in
//! the long run, so a slow upstream has no more load to speak of.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    connections: Mutex<Connections>,
    is_probing: AtomicBool,
    credit: AtomicU32,
    /// Connections up to this number are abandoned.
    abandoned: watch::Sender<u64>,
}

/// The connections of a pool, numbered from 1 in the order in which they were opened.
#[derive(Debug, Default)]
struct Connections {
    opened: u64,
    /// Open connections, and those that were closed so lately that what arrived on them still counts.
    arrivals: Vec<(u64, Arc<Arrivals>)>,
}

/// A GET that waits for a response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    sent: Instant,
    /// The last connection that was open when the GET was sent.
    latest: u64,
}

/// The right to send a probe for a suspected GET. The next one begins after it is dropped.
#[derive(Debug)]
pub(super) struct Probe<'a> {
    suspicion: &'a Suspicion,
    suspect: Waiting,
}

impl Suspicion {
    /// Begins without suspicion. Silence of `after` raises it.
    pub(super) fn new(after: Duration) -> Self {
        Self {
            after,
            connections: Mutex::default(),
            is_probing: AtomicBool::new(false),
            credit: AtomicU32::new(REQUESTS_PER_PROBE),
            abandoned: watch::Sender::new(0),
        }
    }

    /// Adds a connection that is being opened. Returns its number, and the record of what arrives on it.
    pub(super) fn open(&self) -> (u64, Arc<Arrivals>) {
        let now = Instant::now();
        let mut connections = self.connections();
        // The last reference to the record of a closed connection is the one here.
        connections
            .arrivals
            .retain(|(_, arrivals)| Arc::strong_count(arrivals) > 1 || arrivals.last() + self.after > now);
        connections.opened += 1;
        let opened = (connections.opened, Arc::default());
        connections.arrivals.push(opened.clone());
        opened
    }

    /// Counts a GET that is sent now, which earns a part of a probe.
    pub(super) fn count_request(&self) -> Waiting {
        let add = |credit: u32| (credit < MOST_CREDIT).then_some(credit + 1);
        let _ = self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        Waiting { sent: Instant::now(), latest: self.connections().opened }
    }

    /// Returns the moment before which a GET is not suspected. Costs no look at the connections, unlike [`Self::suspected_at`].
    pub(super) fn first_check(&self, waiting: Waiting) -> Instant {
        waiting.sent + self.after
    }

    /// Returns the moment at which a GET is suspected, if nothing arrives until then.
    pub(super) fn suspected_at(&self, waiting: Waiting) -> Instant {
        let connections = self.connections();
        let as_old = connections.arrivals.iter().filter(|(number, _)| *number <= waiting.latest);
        as_old.map(|(_, arrivals)| arrivals.last()).fold(waiting.sent, Instant::max) + self.after
    }

    /// Begins a probe for a suspected GET, unless one is under way or too many were needless.
    pub(super) fn begin_probe(&self, suspect: Waiting) -> Option<Probe<'_>> {
        if self.is_probing.swap(true, Ordering::Relaxed) {
            return None;
        }
        let probe = Probe { suspicion: self, suspect };
        (self.credit.load(Ordering::Relaxed) >= REQUESTS_PER_PROBE).then_some(probe)
    }

    /// Returns the number up to which connections are abandoned, and its changes.
    pub(super) fn abandoned(&self) -> watch::Receiver<u64> {
        self.abandoned.subscribe()
    }

    /// Returns true if the connection with this number is abandoned.
    pub(super) fn is_abandoned(&self, number: u64) -> bool {
        number <= *self.abandoned.borrow()
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        // No code that can panic runs under the lock.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Probe<'_> {
    /// Pays for the probe, which is sent now. Returns false if the GET is not suspected any more.
    pub(super) fn send(&self) -> bool {
        let is_suspected = self.suspicion.suspected_at(self.suspect) <= Instant::now();
        if is_suspected {
            // Only one probe at a time can pay.
            self.suspicion.credit.fetch_sub(REQUESTS_PER_PROBE, Ordering::Relaxed);
        }
        is_suspected
    }

    /// Records that the probe was answered first: the connections that were open when the suspected GET was sent are abandoned.
    pub(super) fn won(self) {
        self.suspicion.credit.fetch_add(REQUESTS_PER_PROBE, Ordering::Relaxed);
        self.suspicion.abandoned.send_modify(|abandoned| *abandoned = self.suspect.latest.max(*abandoned));
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.suspicion.is_probing.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn needless_probes_are_few_and_one_at_a_time() {
        let suspicion = Suspicion::new(SECOND);
        let (old, _arrivals) = suspicion.open();
        let suspect = suspicion.count_request();
        let (new, _) = suspicion.open();
        advance(SECOND).await;
        let first = suspicion.begin_probe(suspect).expect("a pool begins with one");
        assert!(first.send());
        assert!(suspicion.begin_probe(suspect).is_none(), "one is in flight");
        first.won();
        assert!(suspicion.is_abandoned(old) && !suspicion.is_abandoned(new));
        drop(suspicion.begin_probe(suspect).expect("the first was not needless"));
        assert!(suspicion.begin_probe(suspect).expect("the second was not sent").send());
        assert!(suspicion.begin_probe(suspect).is_none(), "the third was needless");
        let needless = (0..1000).filter(|_| {
            suspicion.count_request();
            suspicion.begin_probe(suspect).is_some_and(|probe| probe.send())
        });
        assert_eq!(needless.count(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn what_arrives_on_a_connection_that_is_as_old_puts_suspicion_off() {
        let suspicion = Suspicion::new(SECOND);
        let connections = [suspicion.open(), suspicion.open()];
        let waiting = suspicion.count_request();
        let (_, newer) = suspicion.open();
        let sent = Instant::now();
        assert_eq!(suspicion.suspected_at(waiting), sent + SECOND);
        advance(Duration::from_millis(400)).await;
        newer.record();
        assert_eq!(suspicion.suspected_at(waiting), sent + SECOND, "it says nothing about the older ones");
        connections[1].1.record();
        // Also if it is closed then.
        drop(connections);
        suspicion.open();
        assert_eq!(suspicion.suspected_at(waiting), sent + Duration::from_millis(1400));
        advance(SECOND).await;
        let probe = suspicion.begin_probe(waiting).expect("a pool begins with one");
        assert!(probe.send(), "it is suspected now");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_is_not_sent_if_the_silence_ends_before() {
        let suspicion = Suspicion::new(SECOND);
        let (_, arrivals) = suspicion.open();
        let waiting = suspicion.count_request();
        advance(SECOND).await;
        let probe = suspicion.begin_probe(waiting).expect("it is suspected");
        arrivals.record();
        assert!(!probe.send());
    }
}
