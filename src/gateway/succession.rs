//! The gateway after the configuration has changed. It is made whole before anything is swapped, so one that can't be made
//! changes nothing; a request that has begun ends with the gateway that it began with.

use std::sync::Arc;

use super::{Gateway, store};
use crate::client::ClientSetupError;
use crate::config::Config;
use crate::cors::Cors;

impl Gateway {
    /// A gateway with another configuration and what this one knows, as far as the settings allow. Nothing changes before
    /// [`Gateway::take_over`].
    ///
    /// # Errors
    /// If an issuer's key server or the collector of traces can't be reached in the way that the configuration says.
    pub fn successor(&self, config: Arc<Config>) -> Result<Self, ClientSetupError> {
        let (was, is) = (&self.config, &config);
        // Whose answers they are, in which words questions are asked, and which questions are the same.
        let answers_hold = was.upstream.base_url == is.upstream.base_url
            && was.upstream.dialect == is.upstream.dialect
            && was.query == is.query;
        let same_capacity = was.cache.capacity == is.cache.capacity;
        Ok(Self {
            callers: self.callers.successor(&config, answers_hold)?,
            store: if same_capacity { self.store.clone() } else { store(is.cache.capacity.bytes(), &self.observer) },
            flights: Arc::clone(&self.flights),
            cors: is.cors.as_ref().map(Cors::new),
            origin: self.origin.successor(&config),
            tracer: if was.traces == is.traces {
                self.tracer.clone()
            } else {
                // What the one before still has it sends by itself.
                self.observer.tracer(&is.traces)?
            },
            observer: Arc::clone(&self.observer),
            clock: self.clock.clone(),
            config,
        })
    }

    /// Brings budgets that are shared with the gateway before in line with this one's settings. Call it right before it
    /// begins to serve.
    pub fn take_over(&self) {
        self.callers.take_over();
    }

    /// What it was made with.
    #[must_use]
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }
}
