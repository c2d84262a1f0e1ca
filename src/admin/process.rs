//! What whoever runs the gateway wants to know of the process around it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use serde::Serialize;

/// The process around the gateway: whether it is about to end, and what became of its configuration.
#[derive(Debug, Default)]
pub struct Process {
    draining: AtomicBool,
    refused: ArcSwapOption<String>,
}

/// What became of the configuration that was read last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Configuration {
    /// It is in effect.
    pub ok: bool,
    /// Why it is not; the one before it is still in effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Process {
    /// It is about to end: nobody new should come.
    pub fn drains(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether it is about to end.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// A configuration was read again: it is in effect, or it was refused for a reason.
    pub fn reloaded(&self, refused: Option<String>) {
        self.refused.store(refused.map(Arc::new));
    }

    /// What became of the configuration that was read last.
    #[must_use]
    pub fn configuration(&self) -> Configuration {
        let error = self.refused.load().as_deref().cloned();
        Configuration { ok: error.is_none(), error }
    }
}
