//! The metrics as Prometheus reads them.

use std::collections::{BTreeMap, BTreeSet};

use postern::observe::DECLARED;

use super::Gateway;

/// Samples by name and labels as they are written: `name{label="value"}`.
pub(crate) struct Samples(BTreeMap<String, f64>);

impl Samples {
    /// Reads the text format strictly: HELP, with the declared text, and TYPE come before a metric's samples, and no sample
    /// comes twice.
    pub(crate) fn of(text: &str) -> Self {
        let (mut samples, mut kinds) = (BTreeMap::new(), BTreeMap::new());
        let mut helped = BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a name and a text");
                let declared = DECLARED.iter().find(|metric| metric.name == name);
                assert_eq!(declared.map(|metric| metric.help), Some(help), "{line}");
                assert!(helped.insert(name.to_owned()), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a kind");
                assert!(helped.contains(name) && kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
            } else {
                let (sample, value) = line.rsplit_once(' ').expect("a sample and a value");
                let name = sample.split('{').next().unwrap_or(sample);
                let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
                let kind = kinds.get(name).or_else(|| kinds.get(family?).filter(|kind| *kind == "histogram"));
                assert!(kind.is_some(), "{line}");
                let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
                assert_eq!(samples.insert(sample.to_owned(), value), None, "{line}");
            }
        }
        Self(samples)
    }

    pub(crate) fn get(&self, sample: &str) -> f64 {
        self.0.get(sample).copied().unwrap_or_else(|| panic!("no {sample} in {:#?}", self.0))
    }

    /// The labelled names of a metric's samples.
    pub(crate) fn of_metric(&self, name: &str) -> Vec<&str> {
        let labelled = format!("{name}{{");
        self.0.keys().map(String::as_str).filter(|sample| sample.starts_with(&labelled)).collect()
    }

    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.0.keys().map(|sample| sample.split('{').next().unwrap_or(sample)).collect()
    }
}

/// The samples of a gateway's metrics.
pub(crate) fn samples(gateway: &Gateway) -> Samples {
    Samples::of(&gateway.metrics())
}

pub(crate) fn is(found: f64, expected: f64) -> bool {
    (found - expected).abs() < 1e-9
}

/// Compares the values of samples.
macro_rules! assert_samples {
    ($samples:expr, $($sample:expr => $value:expr),+ $(,)?) => {
        let samples = $samples;
        $(assert!($crate::support::samples::is(samples.get($sample), $value), "{}: {}", $sample, samples.get($sample));)+
    };
}

pub(crate) use assert_samples;
