//! Errors that have something in common, counted together, with the last few of each group. Memory is bounded.
//!
//! A source with many groups, such as a client key that is refused for a thousand linked accounts, displaces its own groups. It
//! never displaces those of others, so that a rare error stays visible.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;

use crate::clock::Moment;

/// Number of groups that are kept.
pub(super) const GROUPS_KEPT: usize = 50;
/// Number of errors of a group that are kept.
pub(super) const ERRORS_KEPT: usize = 5;

/// Groups of errors with the same `K`; the one with the newest error comes first.
#[derive(Debug)]
pub(super) struct ErrorGroups<K, E>(Vec<Box<Group<K, E>>>);

/// Errors that have `common` in common.
#[derive(Debug)]
pub(super) struct Group<K, E> {
    pub(super) common: K,
    /// The hash of the part of `common` that says whose the error is.
    source: u64,
    /// Number of errors since the first one.
    pub(super) count: u64,
    pub(super) first_at: Moment,
    pub(super) last_at: Moment,
    /// The last errors, newest first.
    pub(super) last: VecDeque<E>,
}

/// An error to add: what it has in common with others of its group, as far as it is needed to find the group.
pub(super) trait NewError<K, E> {
    /// Returns whether the error belongs to the group with `common`.
    fn belongs_to(&self, common: &K) -> bool;
    /// The properties that the groups of one source share.
    fn source(&self) -> impl Hash;
    /// The parts that are kept: of a group that is new, and of the error itself.
    fn common(&self) -> K;
    /// The error itself.
    fn single(&self) -> E;
}

impl<K, E> Default for ErrorGroups<K, E> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K, E> ErrorGroups<K, E> {
    /// Adds an error to its group.
    pub(super) fn add(&mut self, error: &impl NewError<K, E>, at: Moment) {
        let place = match self.0.iter().position(|group| error.belongs_to(&group.common)) {
            Some(place) => place,
            None => self.begin(error, at),
        };
        let group = &mut self.0[place];
        group.count += 1;
        group.last_at = at;
        group.last.truncate(ERRORS_KEPT - 1);
        group.last.push_front(error.single());
        self.0[..=place].rotate_right(1);
    }

    /// Begins a group, and returns its place.
    fn begin(&mut self, error: &impl NewError<K, E>, at: Moment) -> usize {
        if self.0.len() >= GROUPS_KEPT {
            self.0.remove(self.least_missed());
        }
        let mut hasher = DefaultHasher::new();
        error.source().hash(&mut hasher);
        let (common, source) = (error.common(), hasher.finish());
        let last = VecDeque::with_capacity(ERRORS_KEPT);
        self.0.push(Box::new(Group { common, source, count: 0, first_at: at, last_at: at, last }));
        self.0.len() - 1
    }

    /// The place of the oldest group of the source that has most of them.
    fn least_missed(&self) -> usize {
        let number_of = |source: u64| self.0.iter().filter(|group| group.source == source).count();
        // Of several, `max_by_key` returns the last one, which is the oldest.
        self.0.iter().enumerate().max_by_key(|(_, group)| number_of(group.source)).map_or(0, |(place, _)| place)
    }

    /// The groups, the one with the newest error first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Group<K, E>> {
        self.0.iter().map(|group| &**group)
    }
}

/// The errors of a group, as the status page shows them.
#[derive(Clone, Debug, Serialize)]
pub struct Occurrences<E> {
    /// Number of errors since the first of them.
    pub count: u64,
    /// Seconds since the first of them.
    pub first_seconds_ago: f64,
    /// Seconds since the last of them.
    pub seconds_ago: f64,
    /// The last of them, newest first.
    pub last: Vec<E>,
}

impl<E> Occurrences<E> {
    /// The errors of a group at `now`, each as `show` has it.
    pub(super) fn of<K, S>(group: &Group<K, S>, now: Moment, show: impl Fn(&S) -> E) -> Self {
        let since = |moment: Moment| now.since(moment).as_secs_f64();
        Self {
            count: group.count,
            first_seconds_ago: since(group.first_at),
            seconds_ago: since(group.last_at),
            last: group.last.iter().map(show).collect(),
        }
    }

    /// Adds errors of which the newest is older than the newest of these. `age` is that of an error, in seconds.
    pub(super) fn absorb(&mut self, older: Self, age: impl Fn(&E) -> f64) {
        self.count += older.count;
        self.first_seconds_ago = self.first_seconds_ago.max(older.first_seconds_ago);
        self.last.extend(older.last);
        self.last.sort_by(|one, other| age(one).total_cmp(&age(other)));
        self.last.truncate(ERRORS_KEPT);
    }
}

/// A group as the status page shows it.
pub(super) trait ShownGroup {
    /// Returns whether the groups differ in their errors only.
    fn looks_like(&self, other: &Self) -> bool;
    /// Adds the errors of a group that looks like this one and whose newest error is older.
    fn absorb(&mut self, older: Self);
}

/// Joins groups that look alike, such as those of linked accounts that are not named. The newest comes first.
pub(super) fn joined<G: ShownGroup>(groups: impl Iterator<Item = G>) -> Vec<G> {
    let mut joined: Vec<G> = Vec::new();
    for group in groups {
        match joined.iter_mut().find(|shown| shown.looks_like(&group)) {
            Some(shown) => shown.absorb(group),
            None => joined.push(group),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error of a source, and a number that tells its groups apart.
    #[derive(Clone, Debug, PartialEq)]
    struct Named(&'static str, u32);

    impl NewError<Named, u32> for Named {
        fn belongs_to(&self, common: &Named) -> bool {
            self == common
        }
        fn source(&self) -> impl Hash {
            self.0
        }
        fn common(&self) -> Named {
            self.clone()
        }
        fn single(&self) -> u32 {
            self.1
        }
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_group_counts_all_errors_and_keeps_the_last() {
        let mut groups = ErrorGroups::default();
        for second in 1..=20 {
            groups.add(&Named("a", 1), at(second));
        }
        groups.add(&Named("b", 1), at(21));
        let all: Vec<_> = groups.iter().collect();
        assert_eq!((all[0].common.0, all[1].common.0), ("b", "a"), "the newest first");
        assert_eq!((all[1].count, all[1].first_at, all[1].last_at), (20, at(1), at(20)));
        assert_eq!(all[1].last.len(), ERRORS_KEPT);
    }

    #[test]
    fn a_source_with_many_groups_displaces_only_its_own() {
        let mut groups = ErrorGroups::default();
        groups.add(&Named("rare", 0), at(0));
        for number in 0..1000 {
            groups.add(&Named("noisy", number), at(1));
        }
        let kept: Vec<_> = groups.iter().map(|group| group.common.clone()).collect();
        assert_eq!(kept.len(), GROUPS_KEPT);
        assert_eq!((&kept[0], &kept[48], &kept[49]), (&Named("noisy", 999), &Named("noisy", 951), &Named("rare", 0)));
    }
}
