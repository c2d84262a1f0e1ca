//! Connections that wait for their next request. Each is closed when it expires, also if no request comes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Idle connections, the most recently used last. Clones share them.
#[derive(Debug)]
pub(super) struct IdleSet<C>(Arc<Mutex<IdleState<C>>>);

impl<C> Clone for IdleSet<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct IdleState<C> {
    /// Sorted by `since`.
    connections: Vec<Idle<C>>,
    /// The task that closes expired connections, and when it does so next. It runs while there are connections.
    closer: Option<(JoinHandle<()>, Instant)>,
}

#[derive(Debug)]
struct Idle<C> {
    connection: C,
    since: Instant,
    expires: Instant,
}

impl<C: Send + 'static> IdleSet<C> {
    /// Makes an empty set.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(IdleState { connections: Vec::new(), closer: None })))
    }

    /// Takes the most recently used connection, if it has been idle for less than `max_idle`.
    pub(super) fn take(&self, max_idle: Duration) -> Option<C> {
        let now = Instant::now();
        let mut state = lock(&self.0);
        state.connections.retain(|idle| now < idle.expires);
        let last = state.connections.pop_if(|last| now - last.since < max_idle)?;
        Some(last.connection)
    }

    /// Closes the connections that are not to be kept.
    pub(super) fn retain(&self, keep: impl Fn(&C) -> bool) {
        lock(&self.0).connections.retain(|idle| keep(&idle.connection));
    }

    /// Adds a connection until it expires, unless there are `most` already.
    pub(super) fn put(&self, connection: C, expires: Instant, most: usize) {
        let now = Instant::now();
        let mut state = lock(&self.0);
        state.connections.retain(|idle| now < idle.expires);
        if state.connections.len() >= most || expires <= now {
            return;
        }
        state.connections.push(Idle { connection, since: now, expires });
        let is_scheduled = state.closer.as_ref().is_some_and(|(task, wakes)| !task.is_finished() && *wakes <= expires);
        if !is_scheduled {
            let task = tokio::spawn(close_expired(Arc::downgrade(&self.0), expires));
            if let Some((earlier, _)) = state.closer.replace((task, expires)) {
                earlier.abort();
            }
        }
    }
}

/// Closes connections as they expire, first at `wakes`, until none is left.
async fn close_expired<C>(set: Weak<Mutex<IdleState<C>>>, mut wakes: Instant) {
    loop {
        sleep_until(wakes).await;
        let Some(set) = set.upgrade() else { return };
        let mut state = lock(&set);
        let now = Instant::now();
        state.connections.retain(|idle| now < idle.expires);
        let Some(next) = state.connections.iter().map(|idle| idle.expires).min() else {
            state.closer = None;
            return;
        };
        wakes = next;
        if let Some((_, scheduled)) = &mut state.closer {
            *scheduled = next;
        }
    }
}

fn lock<C>(state: &Mutex<IdleState<C>>) -> MutexGuard<'_, IdleState<C>> {
    // No code that can panic runs under the lock.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const MOST: usize = 3;
    const FOREVER: Duration = Duration::MAX;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A connection that is open while the weak end of it lives.
    fn connection() -> (Arc<()>, Weak<()>) {
        let connection = Arc::new(());
        let open = Arc::downgrade(&connection);
        (connection, open)
    }

    #[tokio::test(start_paused = true)]
    async fn expired_connections_are_closed_without_traffic() {
        let set = IdleSet::new();
        let start = Instant::now();
        let mut open = Vec::new();
        // The second one expires before the first, as at the end of its age.
        for expires in [10, 4, 10, 99] {
            let (connection, is_open) = connection();
            set.put(connection, start + seconds(expires), MOST);
            open.push(is_open);
        }
        let count = || open.iter().filter(|open| open.strong_count() > 0).count();
        assert_eq!(count(), MOST, "the fourth is one too many");
        for (second, left) in [(3, 3), (5, 2), (9, 2), (11, 0)] {
            tokio::time::sleep_until(start + seconds(second)).await;
            assert_eq!(count(), left, "after {second} s");
        }
        let (connection, is_open) = connection();
        set.put(connection, Instant::now() + seconds(5), MOST);
        tokio::time::sleep(seconds(6)).await;
        assert_eq!(is_open.strong_count(), 0, "the closer runs again");
    }

    #[tokio::test(start_paused = true)]
    async fn the_most_recently_used_connection_is_taken_if_it_is_fresh_enough() {
        let set = IdleSet::new();
        for name in ["old", "new"] {
            set.put(name, Instant::now() + seconds(60), MOST);
            advance(seconds(1)).await;
        }
        assert_eq!(set.take(seconds(1)), None);
        assert_eq!((set.take(seconds(2)), set.take(seconds(2))), (Some("new"), None));
        assert_eq!((set.take(FOREVER), set.take(FOREVER)), (Some("old"), None));
    }
}
