//! A gateway that serves within the test's process.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::thread::JoinHandle;

use postern::clock::Clock;
use postern::config::ListenAddress;
use postern::lifecycle::{Lifecycle, Reloads};
use postern::observe::ErrorGroup;
use postern::server::{Server, StartError};
use postern::tenant::TrustStatus;

use super::until::until;
use super::{Answer, Client, Configuration, leaks};

/// The fetches that wait for a permit of the upstream budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Fetches with a caller.
    pub(crate) callers: usize,
    /// Renewals in the background.
    pub(crate) renewals: usize,
}

/// A running gateway, and a client of its last TCP listener.
pub(crate) struct Gateway {
    client: Client,
    server: Server,
    clock: Clock,
}

impl Deref for Gateway {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Gateway {
    pub(crate) fn start(configuration: &Configuration, clock: &Clock) -> Self {
        leaks::watch_events();
        let config = configuration.parse().unwrap_or_else(|error| panic!("{error}"));
        let server = Server::start(config, clock.clone()).unwrap_or_else(|error| panic!("{error}"));
        let tcp = server.addresses().iter().filter_map(tcp).next_back();
        // A gateway that listens on Unix sockets alone has no address for the client.
        let client = Client::new(tcp.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))));
        Self { client, server, clock: clock.clone() }
    }

    /// Serves as another configuration says.
    pub(crate) fn reload(&self, configuration: &Configuration) {
        self.try_reload(configuration).unwrap_or_else(|error| panic!("{error}"));
    }

    pub(crate) fn try_reload(&self, configuration: &Configuration) -> Result<(), StartError> {
        self.server.reload(configuration.parse().unwrap_or_else(|error| panic!("{error}")))
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    pub(crate) fn lifecycle(&self) -> Arc<Lifecycle> {
        Arc::clone(self.server.lifecycle())
    }

    pub(crate) fn reloads(&self) -> Reloads {
        self.server.lifecycle().reloads()
    }

    /// The metrics in Prometheus' text format.
    pub(crate) fn metrics(&self) -> String {
        self.server.gateway().metrics(&self.reloads(), &[])
    }

    /// The number of requests of a linked account within the last minute, with those under way.
    pub(crate) fn requests_of(&self, linked_account: &str) -> u64 {
        let busiest = self.server.gateway().tenants()[0].busiest(1000, self.clock.now());
        let busy = busiest.iter().find(|busy| busy.linked_account.as_deref() == Some(linked_account));
        busy.map_or(0, |busy| busy.requests)
    }

    /// The trust in derived answers.
    pub(crate) fn trust(&self) -> TrustStatus {
        self.server.gateway().tenants()[0].trust().status(self.clock.now())
    }

    /// Waits until no comparison of a derived answer is under way.
    pub(crate) async fn until_compared(&self) {
        until(|| self.trust().comparisons == 0).await;
    }

    /// The fetches that wait for a permit of the upstream budget.
    pub(crate) fn waiting(&self) -> Waiting {
        let waiting = self.server.gateway().tenants()[0].upstream_budget().queue_depth();
        Waiting { callers: waiting.foreground, renewals: waiting.background }
    }

    /// The latest errors that the status page shows.
    pub(crate) fn recent_errors(&self) -> Vec<ErrorGroup> {
        self.server.gateway().status().errors
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.server.admin_address().and_then(tcp).expect("the admin listener is on")
    }

    /// `GET` at the admin listener.
    pub(crate) async fn admin(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.client.at(self.admin_address()).get(target, headers).await
    }

    /// `POST` at the admin listener.
    pub(crate) async fn admin_post(&self, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.client.at(self.admin_address()).post(target, headers, body).await
    }

    /// Begins to drain; the thread ends when the gateway has.
    pub(crate) async fn stop(self) -> JoinHandle<()> {
        let lifecycle = self.lifecycle();
        let stopping = std::thread::spawn(move || drop(self));
        until(|| lifecycle.is_draining()).await;
        stopping
    }

    /// Waits until a linked account's requests, with those under way, are so many.
    pub(crate) async fn until_requested(&self, linked_account: &str, requests: u64) {
        until(|| self.requests_of(linked_account) >= requests).await;
    }

    /// [`Gateway::until_requested`], and each of these requests waits for its fetch. Holds for a gateway with one worker: it
    /// answers another request only when it has done all it can for the earlier ones.
    pub(crate) async fn until_joined(&self, linked_account: &str, requests: u64) {
        self.until_requested(linked_account, requests).await;
        self.get("/not-found", &[]).await;
    }

    /// Waits until so many fetches of callers wait for a permit of the upstream budget.
    pub(crate) async fn until_waiting(&self, callers: usize) {
        until(|| self.waiting().callers == callers).await;
    }
}

/// Looks for secrets in everything that the gateway shows of itself.
impl Drop for Gateway {
    fn drop(&mut self) {
        let gateway = self.server.gateway();
        leaks::check("the metrics", &self.metrics());
        leaks::check("the status", &serde_json::to_string(&gateway.status()).expect("JSON"));
        leaks::check("the readiness", &serde_json::to_string(&gateway.readiness()).expect("JSON"));
        leaks::check("the configuration", &gateway.config().redacted().to_string());
        leaks::check_events();
    }
}

fn tcp(address: &ListenAddress) -> Option<SocketAddr> {
    match address {
        ListenAddress::Tcp(address) => Some(*address),
        ListenAddress::Unix(_) => None,
    }
}
