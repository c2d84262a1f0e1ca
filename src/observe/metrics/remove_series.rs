//! Removal of series by the value of a label, such as those of a tenant that a reload has removed.

use prometheus::core::{Atomic, GenericCounter, GenericGauge, MetricVec, MetricVecBuilder};

use crate::series::{Family, Value};

/// A metric whose series can be removed.
pub(super) trait RemoveSeries {
    /// Removes the series in which the label has one of these values. Nothing to do for a metric without the label.
    fn remove_series(&self, _label: &str, _values: &[&str]) {}
}

impl<V: Value> RemoveSeries for Family<V> {
    fn remove_series(&self, label: &str, values: &[&str]) {
        self.remove_series(label, values);
    }
}

impl<T: MetricVecBuilder> RemoveSeries for MetricVec<T> {}

impl<P: Atomic> RemoveSeries for GenericCounter<P> {}

impl<P: Atomic> RemoveSeries for GenericGauge<P> {}
