//! The variables `OTEL_*` that tell how spans are exported, as OpenTelemetry's specification defines them.
//!
//! These are the ones that the connection to the collector and the queue of spans need. The exporter reads the others itself:
//! compression and resource attributes. As the specification demands, a value that can't be used, or is not UTF-8, is ignored,
//! with a warning.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use super::environment::{Environment, NOT_UTF8};
use super::secret::{Secret, SecretSource};

/// Limits of the queue in which spans wait for their export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanBatches {
    /// Most spans that wait; further ones are dropped.
    pub queue: usize,
    /// Most spans in one request to the collector.
    pub batch: usize,
    /// Longest time for which a batch is collected before it is sent.
    pub delay: Duration,
}

/// A setting that is a number.
struct Number {
    /// The variables for it; the first one that is set counts.
    names: &'static [&'static str],
    default: u32,
    range: RangeInclusive<u32>,
}

/// The queue is allocated at once; this many spans take about 25 MB.
const QUEUE: Number = Number { names: &["OTEL_BSP_MAX_QUEUE_SIZE"], default: 2048, range: 1..=1 << 16 };
const BATCH: Number = Number { names: &["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"], default: 512, range: 1..=1 << 16 };
/// In milliseconds. The specification's default is 5 s; with 1 s a trace can be looked at soon after its request.
const DELAY: Number = Number { names: &["OTEL_BSP_SCHEDULE_DELAY"], default: 1000, range: 1..=600_000 };
/// In milliseconds.
const TIMEOUT: Number = Number {
    names: &["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"],
    default: 10_000,
    range: 1..=600_000,
};

/// Variables with headers for the collector.
pub(super) const HEADERS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];

/// The variables of an environment. An empty variable counts as not set.
#[derive(Clone, Copy)]
pub(super) struct OtelVariables<'a>(pub(super) &'a Environment);

impl<'a> OtelVariables<'a> {
    /// The value of a variable.
    pub(super) fn get(self, name: &str) -> Option<&'a str> {
        self.0.get(name).filter(|value| !value.is_empty())
    }

    /// The first variable that is set, with its value.
    pub(super) fn first(self, names: &[&'static str]) -> Option<(&'static str, &'a str)> {
        names.iter().find_map(|name| self.get(name).map(|value| (*name, value)))
    }

    /// The variables whose values are not UTF-8.
    pub(super) fn unreadable(self) -> impl Iterator<Item = &'a str> {
        self.0.unreadable_with_prefix("OTEL_")
    }

    /// True if the environment turns the export of spans off.
    pub(super) fn turn_export_off(self) -> bool {
        self.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || self.get("OTEL_TRACES_EXPORTER") == Some("none")
    }

    /// The limits of the queue.
    pub(super) fn batches(self) -> SpanBatches {
        let queue = self.number(&QUEUE) as usize;
        let delay = Duration::from_millis(self.number(&DELAY).into());
        SpanBatches { queue, batch: queue.min(self.number(&BATCH) as usize), delay }
    }

    /// The headers for the collector, written as `name=value,name=value` with percent-encoded values.
    pub(super) fn headers(self) -> impl Iterator<Item = (HeaderName, Secret)> {
        self.first(&HEADERS).into_iter().flat_map(|(variable, list)| {
            list.split(',').filter_map(move |pair| {
                let (name, value) = pair.split_once('=')?;
                let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
                HeaderValue::from_str(&value).ok()?;
                let secret = Secret::new(value.into_owned(), SecretSource::Env(variable.to_owned()));
                Some((name.trim().parse().ok()?, secret))
            })
        })
    }

    /// The longest time for an export.
    pub(super) fn timeout(self) -> Duration {
        Duration::from_millis(self.number(&TIMEOUT).into())
    }

    /// A warning about each variable that is not UTF-8, but for the one that the caller reports.
    pub(super) fn ignored_bytes(self, reported: Option<&'static str>) -> impl Iterator<Item = String> {
        let others = self.unreadable().filter(move |name| Some(*name) != reported);
        others.map(|name| format!("the environment variable {name} is ignored: {NOT_UTF8}"))
    }

    /// A warning about each number that can't be used.
    pub(super) fn ignored_numbers(self) -> impl Iterator<Item = String> {
        [QUEUE, BATCH, DELAY, TIMEOUT].into_iter().filter_map(move |number| {
            let (name, value) = self.first(number.names)?;
            number.parse(value).is_none().then(|| {
                let (from, to) = number.range.into_inner();
                format!("the environment variable {name} is ignored: it is no number from {from} to {to}")
            })
        })
    }

    fn number(self, number: &Number) -> u32 {
        self.first(number.names).and_then(|(_, value)| number.parse(value)).unwrap_or(number.default)
    }
}

impl Number {
    fn parse(&self, value: &str) -> Option<u32> {
        value.parse().ok().filter(|number| self.range.contains(number))
    }
}
