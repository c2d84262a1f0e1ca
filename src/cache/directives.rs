//! What a request says of the answers it takes: `Cache-Control` (RFC 9111, 5.2.1), as far as its tenant lets it.

use std::time::Duration;

use http::header::{CACHE_CONTROL, HeaderMap};

use super::entry::Entry;
use crate::clock::Moment;
use crate::config::RequestDirective;

/// The directives of one request that count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    no_cache: bool,
    no_store: bool,
    only_if_cached: bool,
    max_age: Option<Duration>,
    min_fresh: Option<Duration>,
    max_stale: Option<Duration>,
}

impl Directives {
    /// Reads them. One that is not allowed, not known or not valid does not count, as if it were not there.
    #[must_use]
    pub fn of(headers: &HeaderMap, allowed: &[RequestDirective]) -> Self {
        let mut directives = Self::default();
        if allowed.is_empty() {
            return directives;
        }
        for value in headers.get_all(CACHE_CONTROL) {
            let Ok(value) = value.to_str() else { continue };
            for directive in value.split(',') {
                let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
                let argument = argument.trim().trim_matches('"');
                if let Some(known) = RequestDirective::of_name(name.trim()).filter(|known| allowed.contains(known)) {
                    directives.add(known, argument);
                }
            }
        }
        directives
    }

    fn add(&mut self, directive: RequestDirective, argument: &str) {
        let seconds = argument.parse().ok().map(Duration::from_secs);
        match directive {
            RequestDirective::NoCache => self.no_cache = true,
            RequestDirective::NoStore => self.no_store = true,
            RequestDirective::OnlyIfCached => self.only_if_cached = true,
            // Of two the stricter counts.
            RequestDirective::MaxAge => self.max_age = seconds.into_iter().chain(self.max_age).min(),
            RequestDirective::MinFresh => self.min_fresh = seconds.into_iter().chain(self.min_fresh).max(),
            // Without an argument any age will do.
            RequestDirective::MaxStale if argument.is_empty() => self.max_stale = Some(Duration::MAX),
            RequestDirective::MaxStale => self.max_stale = seconds.into_iter().chain(self.max_stale).min(),
        }
    }

    /// Whether an entry may answer the request, fresh or not; `None` leaves it to the entry's own lifetime.
    #[must_use]
    pub fn accept(&self, entry: &Entry, now: Moment) -> Option<bool> {
        if *self == Self::default() {
            return None;
        }
        let age = entry.age(now);
        if self.no_cache || self.no_store || self.max_age.is_some_and(|most| age > most) {
            return Some(false);
        }
        let left = entry.lifetime.saturating_sub(age);
        if self.min_fresh.is_some_and(|least| left < least) {
            return Some(false);
        }
        if entry.is_fresh(now) {
            return None;
        }
        match self.max_stale {
            Some(most) => Some(age.saturating_sub(entry.lifetime) <= most),
            // Who says how old an answer may be wants a fresh one (RFC 9111, 5.2.1.1).
            None => self.max_age.map(|_| false),
        }
    }

    /// Not everything fresh will do: an answer has to be seen before it is known whether the request takes it.
    #[must_use]
    pub fn is_choosy(&self) -> bool {
        self.no_cache || self.no_store || self.max_age.is_some() || self.min_fresh.is_some()
    }

    /// Whether an answer that was fetched for others will not do: Refold was asked for it before the request came.
    #[must_use]
    pub fn want_newer(&self, entry: &Entry, began: Moment, now: Moment) -> bool {
        entry.request_time < began && self.accept(entry, now) == Some(false)
    }

    /// The answer must not be kept.
    #[must_use]
    pub fn no_store(&self) -> bool {
        self.no_store
    }

    /// The upstream must not be asked.
    #[must_use]
    pub fn only_if_cached(&self) -> bool {
        self.only_if_cached
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(value: &'static str, allowed: &[RequestDirective]) -> Directives {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(value));
        Directives::of(&headers, allowed)
    }

    #[test]
    fn only_what_is_allowed_counts_and_nonsense_does_not() {
        use RequestDirective::{MaxAge, MaxStale, NoCache};
        assert_eq!(read("no-cache, max-age=0", &[]), Directives::default());
        let max_age = Directives { max_age: Some(Duration::from_secs(3)), ..Directives::default() };
        assert_eq!(read("No-Cache, MAX-AGE = \"3\", max-age=7, foo=1,,", &[MaxAge]), max_age);
        assert!(read("no-cache", &[NoCache]).no_cache);
        assert_eq!(read("max-age=-1, max-age=x", &[MaxAge]), Directives::default());
        assert_eq!(read("max-stale", &[MaxStale]).max_stale, Some(Duration::MAX));
    }
}
