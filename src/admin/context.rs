//! The parts of the process that the admin listener reports on.

use std::sync::Arc;

use crate::config::ListenAddress;
use crate::generation::ActiveGeneration;
use crate::lifecycle::Lifecycle;

/// The parts of the process that the admin listener reports on.
#[derive(Debug)]
pub struct AdminContext {
    /// The address of the admin listener.
    pub address: ListenAddress,
    /// The gateway that serves at present.
    pub generation: Arc<ActiveGeneration>,
    /// The state of the process: draining, and the results of reloads.
    pub lifecycle: Arc<Lifecycle>,
}
