//! The directives of a request's `Cache-Control` (RFC 9111, 5.2.1), as far as its tenant's configuration allows them.

use std::time::Duration;

use http::header::{CACHE_CONTROL, HeaderMap};

use super::entry::Entry;
use crate::clock::Moment;
use crate::config::RequestDirective;

/// The allowed directives of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    no_cache: bool,
    no_store: bool,
    only_if_cached: bool,
    max_age: Option<Duration>,
    min_fresh: Option<Duration>,
    max_stale: Option<Duration>,
}

/// The verdict of a request's directives on a stored entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// The request accepts the entry, although it is stale.
    Accepted,
    /// The request does not accept the entry, even if it is fresh.
    Rejected,
    /// The directives do not decide; the entry's own lifetime does.
    ByLifetime,
}

impl Directives {
    /// Parses `Cache-Control`. A directive that is not allowed, unknown or malformed is ignored.
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
            // Of a repeated directive the stricter one counts.
            RequestDirective::MaxAge => self.max_age = seconds.into_iter().chain(self.max_age).min(),
            RequestDirective::MinFresh => self.min_fresh = seconds.into_iter().chain(self.min_fresh).max(),
            // Without an argument any age is accepted.
            RequestDirective::MaxStale if argument.is_empty() => self.max_stale = Some(Duration::MAX),
            RequestDirective::MaxStale => self.max_stale = seconds.into_iter().chain(self.max_stale).min(),
        }
    }

    /// Judges a stored entry. Part of the hit path.
    #[must_use]
    pub fn judge(&self, entry: &Entry, now: Moment) -> Acceptance {
        if *self == Self::default() {
            return Acceptance::ByLifetime;
        }
        let age = entry.age(now);
        if self.no_cache || self.no_store || self.max_age.is_some_and(|most| age > most) {
            return Acceptance::Rejected;
        }
        let left = entry.lifetime.saturating_sub(age);
        if self.min_fresh.is_some_and(|least| left < least) {
            return Acceptance::Rejected;
        }
        if entry.is_fresh(now) {
            return Acceptance::ByLifetime;
        }
        match self.max_stale {
            Some(most) if age.saturating_sub(entry.lifetime) <= most => Acceptance::Accepted,
            // `max-age` without `max-stale` asks for a fresh response (RFC 9111, 5.2.1.1).
            None if self.max_age.is_none() => Acceptance::ByLifetime,
            Some(_) | None => Acceptance::Rejected,
        }
    }

    /// True if the directives can reject a fresh entry. A fetch for them then answers neither from the store nor by derivation.
    #[must_use]
    pub fn may_reject_fresh(&self) -> bool {
        self.no_cache || self.no_store || self.max_age.is_some() || self.min_fresh.is_some()
    }

    /// True if the directives reject the result of a shared fetch. A result that was requested from the upstream after this
    /// request's `arrival` is never rejected.
    #[must_use]
    pub fn reject_shared(&self, entry: &Entry, arrival: Moment, now: Moment) -> bool {
        entry.request_time < arrival && self.judge(entry, now) == Acceptance::Rejected
    }

    /// True if the response must not be stored.
    #[must_use]
    pub fn no_store(&self) -> bool {
        self.no_store
    }

    /// True if the upstream must not be asked.
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
    fn forbidden_and_malformed_directives_are_ignored() {
        use RequestDirective::{MaxAge, MaxStale, NoCache};
        assert_eq!(read("no-cache, max-age=0", &[]), Directives::default());
        let max_age = Directives { max_age: Some(Duration::from_secs(3)), ..Directives::default() };
        assert_eq!(read("No-Cache, MAX-AGE = \"3\", max-age=7, foo=1,,", &[MaxAge]), max_age);
        assert!(read("no-cache", &[NoCache]).no_cache);
        assert_eq!(read("max-age=-1, max-age=x", &[MaxAge]), Directives::default());
        assert_eq!(read("max-stale", &[MaxStale]).max_stale, Some(Duration::MAX));
    }
}
