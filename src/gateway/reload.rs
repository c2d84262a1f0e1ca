//! The gateway for a changed configuration.
//!
//! It is built completely before it replaces the active gateway. So a configuration that can't be used changes nothing, and a
//! request ends with the gateway that it began with.

use std::sync::Arc;

use super::Gateway;
use crate::config::Config;
use crate::http_client::ClientSetupError;
use crate::request::cors::CorsPolicy;
use crate::tenant::{CachedEntries, TenantDropper};

impl Gateway {
    /// A gateway for another configuration, with as much of this one's state as the settings allow. This one is not
    /// affected before [`Gateway::take_over`].
    ///
    /// # Errors
    /// If the TLS settings for an issuer's key server or the trace collector can't be used.
    pub fn reconfigured(&self, config: Arc<Config>) -> Result<Self, ClientSetupError> {
        let (before, after) = (&self.config, &config);
        // Entries stay valid only with the same base URL, the same dialect and the same `[query]` settings.
        let entries_stay_valid = before.upstream.base_url == after.upstream.base_url
            && before.upstream.dialect == after.upstream.dialect
            && before.query == after.query;
        let entries = if entries_stay_valid { CachedEntries::Keep } else { CachedEntries::Drop };
        let fetcher = self.fetcher.reconfigured(&config, &self.observer);
        Ok(Self {
            callers: self.callers.reconfigured(&config, entries)?,
            cors: after.cors.as_ref().map(CorsPolicy::new),
            encoder: self.encoder.for_store(fetcher.store().clone()),
            fetcher: Arc::new(fetcher),
            deliveries: self.deliveries.clone(),
            tracer: if before.traces == after.traces {
                self.tracer.clone()
            } else {
                // The previous tracer sends the spans that it still holds.
                self.observer.tracer(&after.traces)?
            },
            observer: Arc::clone(&self.observer),
            clock: self.clock.clone(),
            // Its settings change with a restart.
            fleet: self.fleet.clone(),
            config,
        })
    }

    /// Applies this configuration's limits to the budgets that both gateways share. Called right before this one starts
    /// to serve.
    pub fn take_over(&self) {
        self.callers.apply_limits();
        self.observer.configure(self.tenants());
        if let Some(fleet) = &self.fleet {
            fleet.set_dropper(Arc::new(TenantDropper::new(self.tenants())));
        }
    }
}
