//! `postern` alone: the gateway in front of an embedded simulated Refold, and the first requests to try.

use std::net::SocketAddr;
use std::path::Path;

use super::keygen::ClientKey;
use super::signals::Signals;
use super::{Failure, print, simulate};
use crate::clock::Clock;
use crate::config::{Config, Environment};
use crate::server::{Inherited, Server};
use crate::simulator::{Settings, Simulator};

const ORG_KEY_VARIABLE: &str = "REFOLD_ORG_KEY";

pub(super) fn run(listen: SocketAddr, admin: SocketAddr) -> Result<(), Failure> {
    let logging = super::start_logging()?;
    let signals = Signals::catch()?;
    let clock = Clock::system();
    // Nobody outside this process needs the org key of the simulated Refold, so nobody knows it.
    let org_key = ClientKey::generate()?.key;
    let simulator = Simulator::new(Settings { org_keys: vec![org_key.clone()], ..Settings::default() }, clock.clone());
    let refold = simulate::start(simulator.clone(), SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let client = ClientKey::generate()?;
    let mut environment = Environment::default();
    environment.insert(ORG_KEY_VARIABLE, &org_key);
    let config = Config::parse(&configuration(listen, admin, refold, &client), Path::new("demo.toml"), &environment)?;
    let server = Server::start_with(config, clock, Inherited::default(), logging.access_log.clone())?;
    let address = &server.addresses()[0];
    print(introduction(&address.to_string(), refold, &client, &simulator));
    if let Some(address) = server.admin_address() {
        print(format_args!("\nWhat it is doing, and an explorer: http://{address}/\nCtrl-C ends it."));
    }
    signals.wait();
    server.stop();
    Ok(())
}

fn configuration(listen: SocketAddr, admin: SocketAddr, refold: SocketAddr, client: &ClientKey) -> String {
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
        client.sha256
    )
}

fn introduction(address: &str, refold: SocketAddr, client: &ClientKey, simulator: &Simulator) -> String {
    let key = &client.key;
    let accounts: Vec<String> =
        simulator.linked_accounts().iter().map(|(id, executions)| format!("{id} ({executions})")).collect();
    format!(
        r"Postern listens on http://{address}, in front of a simulated Refold on http://{refold}.

A page of executions; run it twice and see cache-status:

  curl -i 'http://{address}/api/v2/public/execution?page=1&limit=10&status=All' \
    --header 'x-api-key: {key}' \
    --header 'linked_account_id: acme-1'

The same as a session token's holder:

  curl -i 'http://{address}/api/v2/public/execution?status=errored' \
    --header 'Authorization: Bearer {}'

Linked accounts and their executions: {}.",
        simulator.session_token("acme-1"),
        accounts.join(", ")
    )
}
