//! The receiver of the fleet's events. `observe` keeps them for the status page, and hands it in.

use std::fmt;
use std::sync::Arc;

/// Takes the name of a log event, and its details.
type Receive = dyn Fn(&'static str, String) + Send + Sync;

/// Receives the events of a fleet that an operator has to know: the server is away or back, refuses a script or has lost its data,
/// or more replicas run than configured. Each has the name of its log event.
#[derive(Clone)]
pub struct EventSink(Arc<Receive>);

impl EventSink {
    /// Passes the events to a function.
    pub fn new(receive: impl Fn(&'static str, String) + Send + Sync + 'static) -> Self {
        Self(Arc::new(receive))
    }

    /// Drops the events.
    #[must_use]
    pub fn none() -> Self {
        Self::new(|_, _| {})
    }

    pub(super) fn add(&self, event: &'static str, details: String) {
        (self.0)(event, details);
    }
}

impl fmt::Debug for EventSink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("EventSink")
    }
}
