//! Removal of series by the value of a label, such as those of a tenant that a reload has removed.

use std::collections::HashMap;

use prometheus::core::{Atomic, Collector, GenericCounter, GenericGauge, MetricVec, MetricVecBuilder};

/// A metric whose series can be removed.
pub(super) trait RemoveSeries {
    /// Removes the series in which the label has one of these values.
    fn remove_series(&self, label: &str, values: &[&str]);
}

impl<T: MetricVecBuilder> RemoveSeries for MetricVec<T> {
    fn remove_series(&self, label: &str, values: &[&str]) {
        for family in self.collect() {
            for metric in family.get_metric() {
                let labels: HashMap<&str, &str> =
                    metric.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
                if labels.get(label).is_some_and(|value| values.contains(value)) {
                    // An error means that it is gone already.
                    let _ = self.remove(&labels);
                }
            }
        }
    }
}

impl<P: Atomic> RemoveSeries for GenericCounter<P> {
    fn remove_series(&self, _: &str, _: &[&str]) {}
}

impl<P: Atomic> RemoveSeries for GenericGauge<P> {
    fn remove_series(&self, _: &str, _: &[&str]) {}
}
