//! Families of labelled series, for metrics that have series for each tenant.
//!
//! A vector of the `prometheus` library copies the family's name, help text and label names into each of its series: 0.9 KB for
//! a counter, 1.6 KB for a histogram, and a tenant has some forty series. Here a series is its label values and its numbers.
//! A handle to a series counts without a look-up.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};

/// Stands between the label values of a key. UTF-8 has no such byte.
const SEPARATOR: u8 = 0xff;

/// The value of a series. Clones share it.
pub trait Value: Clone + Debug + Send + Sync {
    /// The type that a scrape shows.
    const TYPE: MetricType;

    /// A value without an event; `bounds` are the upper bounds of a histogram's buckets.
    fn new(bounds: &'static [f64]) -> Self;

    /// Writes the present value into a metric.
    fn show(&self, metric: &mut Metric);
}

/// All series of one metric, by their label values. Clones share them.
#[derive(Clone, Debug)]
pub struct Family<V> {
    desc: Arc<Desc>,
    bounds: &'static [f64],
    series: Arc<RwLock<HashMap<Box<[u8]>, V>>>,
}

impl<V: Value> Family<V> {
    /// A family without series.
    ///
    /// # Errors
    /// If the name or a label is invalid.
    pub fn new(name: &str, help: &str, labels: &[&str], bounds: &'static [f64]) -> prometheus::Result<Self> {
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        let desc = Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())?;
        Ok(Self { desc: Arc::new(desc), bounds, series: Arc::default() })
    }

    /// The series with these label values, in the order of the declaration. It is made if there is none.
    #[must_use]
    pub fn with_label_values(&self, values: &[&str]) -> V {
        debug_assert_eq!(values.len(), self.desc.variable_labels.len(), "a value for each label");
        let mut key = Vec::new();
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                key.push(SEPARATOR);
            }
            key.extend_from_slice(value.as_bytes());
        }
        // A panic leaves the map valid: it is never half changed.
        if let Some(value) = self.series.read().unwrap_or_else(PoisonError::into_inner).get(&*key) {
            return value.clone();
        }
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        series.entry(key.into()).or_insert_with(|| V::new(self.bounds)).clone()
    }

    /// Removes all series.
    pub fn reset(&self) {
        self.series.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Removes the series in which the label has one of these values.
    pub fn remove_series(&self, label: &str, values: &[&str]) {
        let Some(index) = self.desc.variable_labels.iter().position(|name| name == label) else { return };
        let is_removed = |key: &[u8]| {
            let value = key.split(|byte| *byte == SEPARATOR).nth(index);
            value.is_some_and(|value| values.iter().any(|removed| removed.as_bytes() == value))
        };
        self.series.write().unwrap_or_else(PoisonError::into_inner).retain(|key, _| !is_removed(key));
    }

    fn labels(&self, key: &[u8]) -> Vec<LabelPair> {
        let values = key.split(|byte| *byte == SEPARATOR);
        let mut labels: Vec<LabelPair> = self.desc.variable_labels.iter().zip(values).map(pair).collect();
        labels.sort_by(|one, other| one.name().cmp(other.name()));
        labels
    }
}

fn pair((name, value): (&String, &[u8])) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.clone());
    pair.set_value(String::from_utf8_lossy(value).into_owned());
    pair
}

impl<V: Value> Collector for Family<V> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        let metrics = series.iter().map(|(key, value)| {
            let mut metric = Metric::from_label(self.labels(key));
            value.show(&mut metric);
            metric
        });
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(V::TYPE);
        family.set_metric(metrics.collect());
        vec![family]
    }
}

/// A number of events.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Counts one event.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// Counts this many events.
    pub fn inc_by(&self, events: u64) {
        self.0.fetch_add(events, Ordering::Relaxed);
    }

    /// The number of events.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Value for Counter {
    const TYPE: MetricType = MetricType::COUNTER;

    fn new(_: &'static [f64]) -> Self {
        Self::default()
    }

    fn show(&self, metric: &mut Metric) {
        let mut counter = proto::Counter::default();
        counter.set_value(float(self.get()));
        metric.set_counter(counter);
    }
}

/// A number that is set: the bits of an `f64`.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Sets the number.
    pub fn set(&self, number: f64) {
        self.0.store(number.to_bits(), Ordering::Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

impl Value for Gauge {
    const TYPE: MetricType = MetricType::GAUGE;

    fn new(_: &'static [f64]) -> Self {
        Self::default()
    }

    fn show(&self, metric: &mut Metric) {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(self.get());
        metric.set_gauge(gauge);
    }
}

/// Numbers of observed values between bounds, and their sum.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    /// The bits of an `f64`.
    sum: AtomicU64,
    /// For each bound the values up to it that are above the bound before; at the end those above all bounds.
    counts: Box<[AtomicU64]>,
}

impl Histogram {
    /// Counts a value. Part of the hit path.
    pub fn observe(&self, value: f64) {
        let Buckets { bounds, sum, counts } = &*self.0;
        let bucket = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        counts[bucket].fetch_add(1, Ordering::Relaxed);
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // It can't fail: `add` always returns a number.
        let _ = sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

impl Value for Histogram {
    const TYPE: MetricType = MetricType::HISTOGRAM;

    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Buckets { bounds, sum: AtomicU64::new(0), counts }))
    }

    fn show(&self, metric: &mut Metric) {
        let Buckets { bounds, sum, counts } = &*self.0;
        let mut total = 0;
        let mut buckets = Vec::with_capacity(bounds.len());
        for (bound, count) in bounds.iter().zip(counts) {
            total += count.load(Ordering::Relaxed);
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(total);
            buckets.push(bucket);
        }
        total += counts.last().map_or(0, |above| above.load(Ordering::Relaxed));
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(total);
        histogram.set_sample_sum(f64::from_bits(sum.load(Ordering::Relaxed)));
        metric.set_histogram(histogram);
    }
}

/// A count as Prometheus shows it.
#[must_use]
pub fn float(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "all numbers of Prometheus are floating-point ones")]
    let float = count as f64;
    float
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};

    use super::*;

    fn text(collector: impl Collector + 'static) -> String {
        let registry = Registry::new();
        registry.register(Box::new(collector)).expect("the only one");
        TextEncoder::new().encode_to_string(&registry.gather()).expect("text")
    }

    #[test]
    fn counters_look_like_those_of_the_library() {
        let ours = Family::<Counter>::new("a_total", "Help.", &["tenant", "kind"], &[]).expect("valid");
        let theirs = IntCounterVec::new(Opts::new("a_total", "Help."), &["tenant", "kind"]).expect("valid");
        for (tenant, kind, count) in [("b", "x", 3), ("a", "", 0), ("ä\"\\\n", "x", 7), ("a", "y", 1 << 60)] {
            ours.with_label_values(&[tenant, kind]).inc_by(count);
            theirs.with_label_values(&[tenant, kind]).inc_by(count);
        }
        assert_eq!(text(ours), text(theirs));
    }

    #[test]
    fn histograms_look_like_those_of_the_library() {
        const BOUNDS: &[f64] = &[0.5, 1.0, 2.0];
        let ours = Family::<Histogram>::new("a_seconds", "Help.", &["tenant"], BOUNDS).expect("valid");
        let options = HistogramOpts::new("a_seconds", "Help.").buckets(BOUNDS.to_vec());
        let theirs = HistogramVec::new(options, &["tenant"]).expect("valid");
        let (one, other) = (ours.with_label_values(&["a"]), theirs.with_label_values(&["a"]));
        for value in [0.0, 0.5, 0.7, 2.0, 2.1, 9.0] {
            one.observe(value);
            other.observe(value);
        }
        let _ = (ours.with_label_values(&["b"]), theirs.with_label_values(&["b"]));
        assert_eq!(text(ours), text(theirs));
    }

    #[test]
    fn equal_label_values_are_one_series() {
        let family = Family::<Counter>::new("a_total", "Help.", &["one", "two"], &[]).expect("valid");
        family.with_label_values(&["a", "bc"]).inc();
        family.with_label_values(&["a", "bc"]).inc();
        family.with_label_values(&["ab", "c"]).inc();
        assert_eq!(family.with_label_values(&["a", "bc"]).get(), 2);
        assert_eq!(family.with_label_values(&["ab", "c"]).get(), 1);
    }

    #[test]
    fn series_are_removed_by_a_label() {
        let family = Family::<Gauge>::new("a", "Help.", &["kind", "tenant"], &[]).expect("valid");
        for labels in [["x", "a"], ["y", "a"], ["a", "b"], ["x", "c"]] {
            family.with_label_values(&labels).set(1.5);
        }
        family.remove_series("other", &["a"]);
        family.remove_series("tenant", &["a", "c"]);
        let left = text(family.clone());
        assert!(left.contains("a{kind=\"a\",tenant=\"b\"} 1.5") && left.matches('{').count() == 1, "{left}");
        family.reset();
        assert_eq!(text(family), "");
    }
}
