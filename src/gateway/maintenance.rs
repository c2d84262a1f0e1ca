//! Operations of the gateway that the server uses besides answering requests.

use std::sync::Arc;

use jiff::Timestamp;

use super::Gateway;
use crate::caller::ListenerIdentity;
use crate::config::Config;
use crate::fleet::Fleet;
use crate::http_client::Client;
use crate::limit::delete_idle_orgs;
use crate::observe::{AdminCloseReason, CloseReason, OpenConnectionGuard};
use crate::tenant::Tenant;
use crate::tls::VerifiedCertificate;

impl Gateway {
    /// The configuration that this gateway was made with.
    #[must_use]
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// All tenants, in the order of the configuration.
    #[must_use]
    pub fn tenants(&self) -> &[Arc<Tenant>] {
        self.callers.tenants()
    }

    /// The identity of requests over a connection of a listener, whose client certificate is verified if there is one.
    #[must_use]
    pub fn connection_identity(
        &self,
        listener: &ListenerIdentity,
        certificate: Option<&VerifiedCertificate>,
    ) -> ListenerIdentity {
        let granted =
            certificate.and_then(|certificate| Some((certificate, self.callers.by_certificate(&certificate.names)?)));
        match granted {
            Some((certificate, grant)) => listener.with_certificate(grant, certificate.valid_until),
            None => listener.clone(),
        }
    }

    /// The current wall-clock time.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        self.clock.wall()
    }

    /// Counts a caller's connection as open until the returned value is dropped.
    #[must_use]
    pub fn connected(&self) -> OpenConnectionGuard {
        self.observer.connection_opened()
    }

    /// Counts a caller's connection that the server closed.
    pub fn connection_closed(&self, reason: CloseReason) {
        self.observer.connection_closed(reason);
    }

    /// Adds an event to those that the status page shows. The name is that of its log event.
    pub fn event(&self, event: &'static str, tenant: Option<&str>, details: String) {
        self.observer.event(event, tenant, details);
    }

    /// Counts a connection of the admin listener that it closed.
    pub fn admin_connection_closed(&self, reason: AdminCloseReason) {
        self.observer.admin_connection_closed(reason);
    }

    /// Reports the most connections of callers that can be open.
    pub fn set_connections_limit(&self, limit: usize) {
        self.observer.set_connections_limit(limit);
    }

    /// Waits a moment for the spans of answered requests to be sent.
    pub fn flush_traces(&self) {
        if let Some(tracer) = &self.tracer {
            tracer.flush();
        }
    }

    /// This process in its fleet; `None` without `[fleet]`.
    #[must_use]
    pub fn fleet(&self) -> Option<&Fleet> {
        self.fleet.as_ref()
    }

    /// Leaves the fleet, if there is one. Called when no more requests are sent to Refold.
    pub fn leave_fleet(&self) {
        if let Some(fleet) = &self.fleet {
            fleet.leave();
        }
    }

    /// Runs the periodic work (refreshing issuers' keys, checking org keys, deleting a fleet's idle orgs) for as long as it is polled. One worker runs it for
    /// all, with its client.
    pub async fn run_maintenance(&self, client: &Client) {
        let verified = self.fetcher.upstream().keep_keys_verified(client, self.callers.tenants(), &self.observer);
        let idle_orgs = async {
            if let Some(fleet) = &self.fleet {
                delete_idle_orgs(fleet, &self.clock).await;
            }
        };
        tokio::join!(self.callers.keep_issuers_fresh(), verified, idle_orgs);
    }
}
