//! The requests that may be in flight at once, shared fairly: first between tenants, then between a tenant's credentials, then
//! between a credential's linked accounts.
//!
//! A free place goes to the waiting request whose tenant holds the fewest places, then whose credential does, then whose linked
//! account does. A place is held for as long as the upstream takes, so a tenant whose requests hang could still hold all of them
//! when another one arrives. Therefore half of all places are divided among the tenants, and no other takes a tenant's part;
//! the other half is for all.
//!
//! Places for strangers' tokens are shared more strictly between the peers that sent them ([`Places::shared_strictly`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::flow::Flow;

/// The places of all tenants.
#[derive(Clone, Debug)]
pub struct Places(Arc<Mutex<PlacesState>>);

/// The holder of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlaceHolder {
    /// A number that stands for the tenant.
    pub tenant: usize,
    /// The credential and the linked account.
    pub flow: Flow,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    /// `None` once it was released.
    places: Option<Places>,
    holder: PlaceHolder,
}

#[derive(Debug)]
struct PlacesState {
    free: usize,
    /// Places that no other tenant takes from a tenant.
    guaranteed: usize,
    tenants: usize,
    /// A credential may hold fewer places than are free.
    is_strict: bool,
    held: HeldPlaces,
    /// In the order of arrival.
    waiting: Vec<Waiter>,
}

/// Places held now, by each level of sharing. Nothing is kept at zero.
#[derive(Debug, Default)]
struct HeldPlaces {
    tenants: Counts<usize>,
    credentials: Counts<u64>,
    flows: Counts<Flow>,
    /// The places that tenants hold out of those that are guaranteed to them.
    within_guarantee: usize,
}

type Counts<K> = HashMap<K, usize, foldhash::fast::RandomState>;

#[derive(Debug)]
struct Waiter {
    holder: PlaceHolder,
    granted: oneshot::Sender<Place>,
}

impl Places {
    /// Creates `total` free places for a number of tenants.
    #[must_use]
    pub fn new(total: usize, tenants: usize) -> Self {
        let tenants = tenants.max(1);
        let guaranteed = if tenants > total { 0 } else { (total / (2 * tenants)).max(1) };
        let (held, waiting, is_strict) = (HeldPlaces::default(), Vec::new(), false);
        let state = PlacesState { free: total, guaranteed, tenants, is_strict, held, waiting };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Creates places of which a credential takes one only if more are free than it holds (Choudhury and Hahne, 1998): alone it
    /// holds half of them, with another one a third. So the next credential finds a place, also while the requests of all
    /// others hang.
    #[must_use]
    pub fn shared_strictly(total: usize, tenants: usize) -> Self {
        let places = Self::new(total, tenants);
        places.state().is_strict = true;
        places
    }

    /// Takes a place if one is free for this holder.
    #[must_use]
    pub fn try_acquire(&self, holder: PlaceHolder) -> Option<Place> {
        self.state().take(holder).then(|| Place { places: Some(self.clone()), holder })
    }

    /// Waits for a place. Dropping the future gives up the wait.
    ///
    /// # Panics
    /// Never: a waiter is removed only with a place, or when its future is gone.
    pub async fn acquire(&self, holder: PlaceHolder) -> Place {
        let granted = {
            let mut state = self.state();
            if state.take(holder) {
                return Place { places: Some(self.clone()), holder };
            }
            let (sender, granted) = oneshot::channel();
            state.waiting.push(Waiter { holder, granted: sender });
            granted
        };
        granted.await.expect("a waiter is only removed to be granted a place, or after its future is gone")
    }

    /// Gives free places to waiters.
    fn grant(&self, state: &mut PlacesState) {
        while let Some(waiter) = state.next_waiter() {
            let holder = waiter.holder;
            if !state.take(holder) {
                return;
            }
            self.hand_over(waiter, state);
        }
    }

    /// Gives a place that was taken to a waiter; releases it if the waiter's future is gone.
    fn hand_over(&self, waiter: Waiter, state: &mut PlacesState) {
        let holder = waiter.holder;
        if let Err(mut refused) = waiter.granted.send(Place { places: Some(self.clone()), holder }) {
            // Dropping the place would lock the state again.
            refused.places = None;
            state.release(holder);
        }
    }

    fn state(&self) -> MutexGuard<'_, PlacesState> {
        // No code that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(places) = &self.places {
            let mut state = places.state();
            state.release(self.holder);
            places.grant(&mut state);
        }
    }
}

impl PlacesState {
    /// Takes a place, unless the free ones are kept for other tenants.
    fn take(&mut self, holder: PlaceHolder) -> bool {
        let can_take = self.can_take(holder);
        if can_take {
            self.free -= 1;
            self.held.add(holder, self.guaranteed);
        }
        can_take
    }

    fn release(&mut self, holder: PlaceHolder) {
        self.free += 1;
        self.held.remove(holder, self.guaranteed);
    }

    fn can_take(&self, PlaceHolder { tenant, flow }: PlaceHolder) -> bool {
        if self.is_strict && self.held.credentials.get(&flow.credential).is_some_and(|held| *held >= self.free) {
            return false;
        }
        let guaranteed = self.guaranteed;
        let own = self.held.tenants.get(&tenant).copied().unwrap_or(0);
        let used_by_others = self.held.within_guarantee - own.min(guaranteed);
        let kept_for_others = (guaranteed * (self.tenants - 1)).saturating_sub(used_by_others);
        self.free > 0 && (own < guaranteed || self.free > kept_for_others)
    }

    /// Removes and returns the waiter that is next to get a place; `None` if no place is free for any.
    fn next_waiter(&mut self) -> Option<Waiter> {
        self.waiting.retain(|waiter| !waiter.granted.is_closed());
        let eligible = self.waiting.iter().enumerate().filter(|(_, waiter)| self.can_take(waiter.holder));
        let (next, _) = eligible.min_by_key(|(arrival, waiter)| (self.held.of(waiter.holder), *arrival))?;
        Some(self.waiting.remove(next))
    }
}

impl HeldPlaces {
    /// Returns the numbers of places that a holder's tenant, credential and linked account hold.
    fn of(&self, holder: PlaceHolder) -> [usize; 3] {
        let PlaceHolder { tenant, flow } = holder;
        let held = [self.tenants.get(&tenant), self.credentials.get(&flow.credential), self.flows.get(&flow)];
        held.map(|held| held.copied().unwrap_or(0))
    }

    /// Adds a place to those of a holder. Each tenant is guaranteed so many.
    fn add(&mut self, PlaceHolder { tenant, flow }: PlaceHolder, guaranteed: usize) {
        let held = self.tenants.entry(tenant).or_default();
        *held += 1;
        self.within_guarantee += usize::from(*held <= guaranteed);
        *self.credentials.entry(flow.credential).or_default() += 1;
        *self.flows.entry(flow).or_default() += 1;
    }

    /// Undoes [`Self::add`].
    fn remove(&mut self, PlaceHolder { tenant, flow }: PlaceHolder, guaranteed: usize) {
        let held = self.tenants.get(&tenant).copied().unwrap_or(0);
        self.within_guarantee -= usize::from((1..=guaranteed).contains(&held));
        subtract(&mut self.tenants, &tenant);
        subtract(&mut self.credentials, &flow.credential);
        subtract(&mut self.flows, &flow);
    }
}

fn subtract<K: std::hash::Hash + Eq>(counts: &mut Counts<K>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn holder(tenant: usize, credential: u64, account: u64) -> PlaceHolder {
        PlaceHolder { tenant, flow: Flow { credential, account } }
    }

    fn is_ready<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(place) => Some(place),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_single_tenant_may_use_all_places() {
        let places = Places::new(3, 1);
        let held: Vec<_> = (0..5).map_while(|_| places.try_acquire(holder(0, 1, 1))).collect();
        assert_eq!(held.len(), 3);
        drop(held);
        assert!(places.try_acquire(holder(0, 1, 1)).is_some());
    }

    #[test]
    fn a_tenant_always_finds_its_part_free() {
        for (total, tenants, most, part) in [(8, 2, 6, 2), (100, 5, 60, 10), (5, 5, 1, 1), (2, 2, 1, 1)] {
            let places = Places::new(total, tenants);
            let mut held = Vec::new();
            held.extend(std::iter::from_fn(|| places.try_acquire(holder(0, 1, 1))));
            assert_eq!(held.len(), most, "{total} places, {tenants} tenants");
            for tenant in 1..tenants {
                for _ in 0..part {
                    held.push(places.try_acquire(holder(tenant, 2, 2)).expect("its part"));
                }
            }
            assert!(held.len() <= total);
        }
        // More tenants than places: nothing can be divided.
        let places = Places::new(3, 4);
        assert_eq!(std::iter::from_fn(|| places.try_acquire(holder(0, 1, 1)).map(std::mem::forget)).count(), 3);
    }

    #[test]
    fn strictly_shared_places_leave_one_for_the_next_credential() {
        let places = Places::shared_strictly(25, 1);
        let mut held = Vec::new();
        let mut most = |credential| {
            let taken = held.len();
            held.extend(std::iter::from_fn(|| places.try_acquire(holder(0, credential, 1))));
            held.len() - taken
        };
        assert_eq!((1..=5).map(&mut most).collect::<Vec<_>>(), [13, 6, 3, 2, 1]);
        assert_eq!(Places::shared_strictly(1, 1).try_acquire(holder(0, 1, 1)).into_iter().count(), 1);
    }

    #[test]
    fn a_free_place_goes_to_the_tenant_credential_and_account_that_hold_least() {
        let places = Places::new(4, 5);
        let mut held: Vec<_> = [holder(0, 1, 1), holder(0, 1, 1), holder(0, 1, 2), holder(1, 5, 9)]
            .map(|holder| places.try_acquire(holder).expect("free"))
            .into();
        let mut waiters: Vec<_> = [holder(0, 1, 1), holder(0, 1, 2), holder(0, 2, 3), holder(1, 5, 9), holder(2, 6, 6)]
            .map(|holder| Box::pin(places.acquire(holder)))
            .into();
        assert!(waiters.iter_mut().all(|waiter| is_ready(waiter.as_mut()).is_none()));
        // Tenant 2 holds nothing. Then all hold one, but credential 2 none; then all but account 1.
        for expected in [holder(2, 6, 6), holder(0, 2, 3), holder(0, 1, 1)] {
            drop(held.remove(0));
            let served = waiters.iter_mut().position(|waiter| {
                is_ready(waiter.as_mut()).is_some_and(|place| {
                    assert_eq!(place.holder, expected);
                    held.push(place);
                    true
                })
            });
            drop(waiters.remove(served.expect("a place is free")));
        }
    }

    #[test]
    fn a_wait_that_is_given_up_holds_no_place() {
        let places = Places::new(1, 1);
        let held = places.try_acquire(holder(0, 1, 1)).expect("free");
        {
            let mut gone = pin!(places.acquire(holder(0, 1, 1)));
            assert!(is_ready(gone.as_mut()).is_none());
        }
        let mut granted = Box::pin(places.acquire(holder(0, 1, 2)));
        assert!(is_ready(granted.as_mut()).is_none());
        drop(held);
        // The place was granted, and is returned with the future that it was for.
        drop(granted);
        assert!(places.try_acquire(holder(0, 1, 1)).is_some());
        assert!(places.state().held.tenants.is_empty());
    }

    #[test]
    fn a_place_for_a_waiter_that_leaves_at_that_moment_is_released() {
        let places = Places::new(1, 1);
        let (sender, receiver) = oneshot::channel();
        drop(receiver);
        {
            let mut state = places.state();
            assert!(state.take(holder(0, 1, 1)));
            places.hand_over(Waiter { holder: holder(0, 1, 1), granted: sender }, &mut state);
            assert_eq!(state.free, 1);
        }
        assert_eq!(Arc::strong_count(&places.0), 1, "nothing refers to the places any more");
    }
}
