//! The session tokens of a tenant that callers have sent lately. Postern can't verify them, so it records the upstream's
//! verdict on each.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::partition::{Owner, Partition, TokenStatus, flow_of};
use super::token_table::{TokenDigest, TokenTable};
use crate::clock::Moment;
use crate::limit::ClientBudget;

/// Time for which the upstream's acceptance of a session token is trusted.
const ACCEPTED_FOR: Duration = Duration::from_mins(1);
/// Time for which a session token is refused here after the upstream has refused it.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// Time for which it is remembered that the upstream has accepted a token, so that the token comes before strangers' tokens.
const KNOWN_FOR: Duration = Duration::from_hours(24);
/// Maximum number of session tokens that are remembered and not accepted.
const MAX_UNPROVEN: u64 = 1024;

/// The upstream's decision about a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamVerdict {
    /// The upstream answered 2xx or 304.
    Accepted,
    /// The upstream answered 401.
    Refused,
}

/// The partitions of session tokens. Accepted tokens and others are bounded separately, so that invented tokens never displace
/// good ones.
#[derive(Clone, Debug)]
pub(super) struct SessionTokens {
    accepted: TokenTable<Arc<Partition>>,
    unproven: TokenTable<Arc<Partition>>,
    /// Tokens that the upstream has accepted, and when it did last.
    known: TokenTable<Moment>,
    /// The ends of the pauses that the upstream has asked tokens for with a 429.
    paused: TokenTable<Moment>,
    paused_unproven: TokenTable<Moment>,
}

impl SessionTokens {
    /// Creates an empty table for so many accepted tokens.
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            accepted: TokenTable::with_lifetime(capacity, ACCEPTED_FOR),
            unproven: TokenTable::with_lifetime(MAX_UNPROVEN, ACCEPTED_FOR),
            known: TokenTable::new(capacity),
            paused: TokenTable::new(capacity),
            paused_unproven: TokenTable::new(MAX_UNPROVEN),
        }
    }

    /// Returns a table that shares the unproven tokens and the pauses with this one, remembers the same tokens, and has no accepted
    /// ones.
    pub(super) fn with_capacity(&self, capacity: u64) -> Self {
        let known = TokenTable::new(capacity);
        for (digest, accepted_at) in self.known.all() {
            known.insert(digest, accepted_at);
        }
        Self { accepted: TokenTable::with_lifetime(capacity, ACCEPTED_FOR), known, ..self.clone() }
    }

    /// The approximate number of tokens.
    pub(super) fn len(&self) -> u64 {
        self.accepted.len() + self.unproven.len()
    }

    /// The approximate number of accepted tokens.
    pub(super) fn accepted_len(&self) -> u64 {
        self.accepted.len()
    }

    /// Returns the partition of a token, and creates it if there is none. A token that is no longer accepted has a new partition, so
    /// that its entries are not found again.
    pub(super) fn get(&self, digest: &TokenDigest, budget: impl Fn() -> ClientBudget, now: Moment) -> Arc<Partition> {
        self.accepted(digest, now).unwrap_or_else(|| {
            let create =
                || Partition::new(Owner::unproven_token(self.was_accepted(digest, now)), flow_of(digest), budget());
            self.unproven.get_with(digest, || Arc::new(create()))
        })
    }

    /// Returns whether the upstream has accepted a token lately.
    pub(super) fn is_accepted(&self, digest: &TokenDigest, now: Moment) -> bool {
        self.accepted(digest, now).is_some()
    }

    fn accepted(&self, digest: &TokenDigest, now: Moment) -> Option<Arc<Partition>> {
        self.accepted.get(digest).filter(|partition| partition.token_status(now) == TokenStatus::Accepted)
    }

    /// Returns whether the upstream accepted a token within the last day, and has not refused it since.
    fn was_accepted(&self, digest: &TokenDigest, now: Moment) -> bool {
        self.known.get(digest).is_some_and(|at| now.since(at) < KNOWN_FOR)
    }

    /// Pauses a token of this status until a moment.
    pub(super) fn pause(&self, digest: TokenDigest, status: TokenStatus, until: Moment) {
        match status {
            TokenStatus::Accepted => self.paused.insert(digest, until),
            TokenStatus::Unproven | TokenStatus::Refused => self.paused_unproven.insert(digest, until),
        }
    }

    /// Returns the end of a token's last pause.
    pub(super) fn paused_until(&self, digest: &TokenDigest) -> Option<Moment> {
        self.paused.get(digest).max(self.paused_unproven.get(digest))
    }

    /// Records that the upstream has accepted a token: from `now` on it is accepted here for [`ACCEPTED_FOR`] and known for
    /// [`KNOWN_FOR`], and an earlier refusal ends.
    pub(super) fn accept(&self, digest: TokenDigest, partition: &Arc<Partition>, now: Moment) {
        if let Owner::SessionToken { accepted_until, refused_until, was_accepted } = &partition.owner {
            refused_until.store(0, Ordering::Release);
            was_accepted.store(true, Ordering::Release);
            // Each acceptance starts the time anew, so a token that is in use does not become unproven again.
            let before = accepted_until.swap((now + ACCEPTED_FOR).as_nanos(), Ordering::AcqRel);
            self.accepted.insert(digest, Arc::clone(partition));
            self.known.insert(digest, now);
            if before <= now.as_nanos() {
                self.unproven.remove(&digest);
            }
        }
    }

    /// Drops a token's entries, and refuses the token for [`REFUSED_FOR`] from `now` on.
    pub(super) fn refuse(&self, digest: TokenDigest, partition: &Arc<Partition>, now: Moment) {
        if let Owner::SessionToken { accepted_until, refused_until, was_accepted } = &partition.owner {
            refused_until.store((now + REFUSED_FOR).as_nanos(), Ordering::Release);
            partition.drop_entries();
            if was_accepted.swap(false, Ordering::AcqRel) {
                self.known.remove(&digest);
            }
            if accepted_until.swap(0, Ordering::AcqRel) != 0 {
                self.unproven.insert(digest, Arc::clone(partition));
                self.accepted.remove(&digest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::config::Rate;

    const RATE: Rate = Rate { per_second: NonZeroU32::MIN, burst: NonZeroU32::MIN };
    const DIGEST: TokenDigest = [7; 32];

    fn budget() -> ClientBudget {
        ClientBudget::new(RATE)
    }

    fn after(seconds: u64) -> Moment {
        Moment::default() + Duration::from_secs(seconds)
    }

    /// A table in which the token was accepted at the beginning.
    fn accepted() -> SessionTokens {
        let tokens = SessionTokens::new(10);
        tokens.accept(DIGEST, &tokens.get(&DIGEST, budget, after(0)), after(0));
        tokens
    }

    #[test]
    fn a_token_is_accepted_for_a_minute_and_known_for_a_day() {
        let day = 24 * 3600;
        for (seconds, status, is_known) in [
            (0, TokenStatus::Accepted, true),
            (59, TokenStatus::Accepted, true),
            (60, TokenStatus::Unproven, true),
            (day - 1, TokenStatus::Unproven, true),
            (day, TokenStatus::Unproven, false),
        ] {
            let partition = accepted().get(&DIGEST, budget, after(seconds));
            assert_eq!(
                (partition.token_status(after(seconds)), partition.was_accepted()),
                (status, is_known),
                "{seconds}"
            );
        }
    }

    #[test]
    fn a_token_that_is_no_longer_accepted_has_no_entries() {
        let tokens = accepted();
        let (first, later) = (tokens.get(&DIGEST, budget, after(59)), tokens.get(&DIGEST, budget, after(60)));
        assert_ne!(first.id(), later.id());
        tokens.accept(DIGEST, &later, after(61));
        assert_eq!(tokens.get(&DIGEST, budget, after(120)).id(), later.id());
        assert!(tokens.is_accepted(&DIGEST, after(120)) && !tokens.is_accepted(&DIGEST, after(121)));
    }

    #[test]
    fn a_refusal_makes_a_known_token_a_strangers() {
        let tokens = accepted();
        tokens.refuse(DIGEST, &tokens.get(&DIGEST, budget, after(90)), after(90));
        for (seconds, status) in [(91, TokenStatus::Refused), (96, TokenStatus::Unproven)] {
            let partition = tokens.get(&DIGEST, budget, after(seconds));
            assert_eq!(
                (partition.token_status(after(seconds)), partition.was_accepted()),
                (status, false),
                "{seconds}"
            );
        }
    }

    #[test]
    fn another_capacity_forgets_no_known_token() {
        let tokens = accepted().with_capacity(20);
        let partition = tokens.get(&DIGEST, budget, after(1));
        assert_eq!((partition.token_status(after(1)), partition.was_accepted()), (TokenStatus::Unproven, true));
    }

    #[test]
    fn a_pause_lasts_as_long_as_it_was_asked_for() {
        let tokens = accepted();
        for (status, digest) in [(TokenStatus::Accepted, DIGEST), (TokenStatus::Unproven, [8; 32])] {
            tokens.pause(digest, status, after(5 * 3600));
            assert_eq!(tokens.paused_until(&digest), Some(after(5 * 3600)));
        }
    }
}
