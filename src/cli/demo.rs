//! `postern` without a command: the gateway in front of an embedded simulated Refold, with the first requests to try.

use std::net::SocketAddr;
use std::path::Path;

use super::keygen::GeneratedKey;
use super::logging::start_logging;
use super::output::{CommandError, print};
use super::signals::Signals;
use super::simulate;
use crate::clock::Clock;
use crate::config::{Config, Environment};
use crate::server::{Server, StartOptions};
use crate::simulator::{Simulator, SimulatorSettings};

const ORG_KEY_VARIABLE: &str = "REFOLD_ORG_KEY";

pub(super) fn run(listen: SocketAddr, admin: SocketAddr) -> Result<(), CommandError> {
    let logging = start_logging()?;
    let signals = Signals::register()?;
    let clock = Clock::system();
    // A random key, because only this process uses it.
    let org_key = GeneratedKey::generate()?.key;
    let settings = SimulatorSettings { org_keys: vec![org_key.clone()], ..SimulatorSettings::default() };
    let simulator = Simulator::new(settings, clock.clone());
    let refold = simulate::start(simulator.clone(), SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let client_key = GeneratedKey::generate()?;
    let mut environment = Environment::default();
    environment.insert(ORG_KEY_VARIABLE, &org_key);
    let text = configuration(listen, admin, refold, &client_key);
    let config = Config::parse(&text, Path::new("demo.toml"), &environment)?;
    let options = StartOptions { access_log: logging.access_log.clone(), ..StartOptions::default() };
    let server = Server::start_with(config, clock, options)?;
    let address = &server.addresses()[0];
    print(introduction(&address.to_string(), refold, &client_key, &simulator));
    if let Some(address) = server.admin_address() {
        print(format_args!("\nStatus page and explorer: http://{address}/\nCtrl-C stops the gateway."));
    }
    signals.wait_for_termination();
    server.stop();
    Ok(())
}

fn configuration(listen: SocketAddr, admin: SocketAddr, refold: SocketAddr, client_key: &GeneratedKey) -> String {
    format!(
        r#"
        [[listeners]]
        address = "{listen}"
        session_tokens = "demo"

        [admin]
        address = "{admin}"

        [upstream]
        base_url = "http://{refold}"

        [[tenants]]
        id = "demo"
        mode = "inject"
        org_key = {{ env = "{ORG_KEY_VARIABLE}" }}

        [[tenants.client_keys]]
        name = "demo"
        sha256 = "{}"
        linked_accounts = ["*"]
        access = "read+write"
        "#,
        client_key.sha256
    )
}

fn introduction(address: &str, refold: SocketAddr, client_key: &GeneratedKey, simulator: &Simulator) -> String {
    let key = &client_key.key;
    let accounts: Vec<String> =
        simulator.linked_accounts().iter().map(|(id, executions)| format!("{id} ({executions})")).collect();
    format!(
        r"Postern listens on http://{address}, in front of a simulated Refold on http://{refold}.

A page of executions; send the request twice and compare the `Cache-Status` header:

  curl -i 'http://{address}/api/v2/public/execution?page=1&limit=10&status=All' \
    --header 'x-api-key: {key}' \
    --header 'linked_account_id: acme-1'

The same linked account with a Refold session token:

  curl -i 'http://{address}/api/v2/public/execution?status=errored' \
    --header 'Authorization: Bearer {}'

Linked accounts and their numbers of executions: {}.",
        simulator.session_token("acme-1"),
        accounts.join(", ")
    )
}
