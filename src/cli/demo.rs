//! `postern demo`: the gateway in front of an embedded simulated Refold, with the first requests to try.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::keygen::GeneratedKey;
use super::logging::{LogArguments, start_logging};
use super::output::{CommandError, print};
use super::shell::quoted;
use super::signals::Signals;
use super::simulate;
use crate::clock::Clock;
use crate::config::{Config, Endpoint, Environment, ListenAddress};
use crate::server::{Server, StartOptions};
use crate::simulator::{Simulator, SimulatorSettings};

const ORG_KEY_VARIABLE: &str = "REFOLD_ORG_KEY";
const ADMIN_TOKEN_VARIABLE: &str = "DEMO_ADMIN_TOKEN";
/// File name in errors of the demo's configuration.
const FILE: &str = "demo.toml";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  postern demo\n  postern demo --listen 127.0.0.1:0 --admin off\n  postern demo --listen 0.0.0.0:8080 --admin 0.0.0.0:9180"
)]
pub(super) struct DemoArguments {
    /// Address that the gateway listens on; port 0 stands for a free port.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Address of the status page and explorer, or `off`.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9180", value_parser = admin_address)]
    admin: AdminChoice,
    /// Token that the status page asks for. If omitted, an address that other hosts can reach gets a random one.
    #[arg(long, value_name = "TOKEN", value_parser = admin_token)]
    admin_token: Option<String>,
    #[command(flatten)]
    log: LogArguments,
}

#[derive(Clone, Copy, Debug)]
enum AdminChoice {
    Off,
    At(SocketAddr),
}

fn admin_address(text: &str) -> Result<AdminChoice, String> {
    if text == "off" {
        return Ok(AdminChoice::Off);
    }
    text.parse().map(AdminChoice::At).map_err(|_| "write an IP address and a port, or `off`".to_owned())
}

fn admin_token(text: &str) -> Result<String, &'static str> {
    let is_token = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_token.then(|| text.to_owned()).ok_or("a token is printable ASCII without spaces")
}

/// The secrets of one demo: random, because only this process uses them.
struct Secrets {
    org_key: String,
    client_key: GeneratedKey,
    admin_token: Option<String>,
}

impl Secrets {
    fn generate(arguments: &DemoArguments) -> Result<Self, CommandError> {
        let admin_token = match (arguments.admin, &arguments.admin_token) {
            (AdminChoice::Off, Some(_)) => return Err("--admin-token has no effect with --admin off".into()),
            (_, Some(token)) => Some(token.clone()),
            (AdminChoice::At(address), None) if !ListenAddress::tcp(address).is_local() => {
                Some(GeneratedKey::generate()?.key)
            }
            _ => None,
        };
        let org_key = GeneratedKey::generate()?.key;
        Ok(Self { org_key, client_key: GeneratedKey::generate()?, admin_token })
    }

    fn environment(&self) -> Environment {
        let mut environment = Environment::default();
        environment.insert(ORG_KEY_VARIABLE, &self.org_key);
        if let Some(token) = &self.admin_token {
            environment.insert(ADMIN_TOKEN_VARIABLE, token);
        }
        environment
    }
}

pub(super) fn run(arguments: &DemoArguments) -> Result<(), CommandError> {
    require_disjoint(arguments)?;
    let logging = start_logging(arguments.log, &Environment::from_process())?;
    let signals = Signals::register()?;
    let clock = Clock::system();
    let secrets = Secrets::generate(arguments)?;
    let settings = SimulatorSettings { org_keys: vec![secrets.org_key.clone()], ..SimulatorSettings::default() };
    let simulator = Simulator::new(settings, clock.clone());
    let refold = simulate::start(simulator.clone(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let text = configuration(arguments, refold, &secrets);
    let config = Config::parse(&text, Path::new(FILE), &secrets.environment())?;
    let options = StartOptions { access_log: logging.access_log.clone(), ..StartOptions::default() };
    let server = Server::start_with(config, clock, options).map_err(|error| {
        let advice = "other addresses are set with --listen and --admin; port 0 stands for a free one";
        format!("{error} ({advice})")
    })?;
    print(introduction(&server.addresses()[0], &secrets, &simulator))?;
    print(format_args!("\n{}", simulate::faults(refold)))?;
    print(admin_introduction(server.admin_address(), &secrets))?;
    signals.wait_for_termination();
    server.stop();
    Ok(())
}

/// Refuses addresses at which a connection could reach both listeners.
fn require_disjoint(arguments: &DemoArguments) -> Result<(), CommandError> {
    let AdminChoice::At(admin) = arguments.admin else { return Ok(()) };
    let endpoint = |address| Endpoint { address: ListenAddress::tcp(address), ipv6_only: false };
    if endpoint(arguments.listen).overlaps(&endpoint(admin)) {
        let advice = "choose another port, or `--admin off`";
        return Err(format!("--listen {} and --admin {admin} share a port: {advice}", arguments.listen).into());
    }
    Ok(())
}

fn configuration(arguments: &DemoArguments, refold: SocketAddr, secrets: &Secrets) -> String {
    let admin = match arguments.admin {
        AdminChoice::Off => "off".to_owned(),
        AdminChoice::At(address) => address.to_string(),
    };
    let token = secrets
        .admin_token
        .as_ref()
        .map_or(String::new(), |_| format!("token = {{ env = \"{ADMIN_TOKEN_VARIABLE}\" }}"));
    format!(
        r#"
        [[listeners]]
        address = "{}"
        session_tokens = "demo"

        [admin]
        address = "{admin}"
        {token}

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
        arguments.listen, secrets.client_key.sha256
    )
}

/// The authority at which a program on this host reaches a listener: a wildcard address is not one to connect to.
fn reachable(address: &ListenAddress) -> String {
    let ListenAddress::Tcp(address) = address else { return address.to_string() };
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port()).to_string()
}

/// A remark if other hosts can connect, too.
fn audience(address: &ListenAddress) -> &'static str {
    match address {
        ListenAddress::Tcp(address) if address.ip().is_unspecified() => " and every other address of this host",
        _ => "",
    }
}

fn introduction(listener: &ListenAddress, secrets: &Secrets, simulator: &Simulator) -> String {
    let (address, audience, key) = (reachable(listener), audience(listener), &secrets.client_key.key);
    let accounts: Vec<String> =
        simulator.linked_accounts().iter().map(|(id, executions)| format!("{id} ({executions})")).collect();
    format!(
        r"Postern listens on http://{address}{audience}, in front of a simulated Refold.

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

fn admin_introduction(admin: Option<&ListenAddress>, secrets: &Secrets) -> String {
    let page = admin.map(|admin| {
        let token = secrets.admin_token.as_deref().map_or(String::new(), |token| {
            let header = quoted(&format!("Authorization: Bearer {token}"));
            let status = format!("http://{}/status", reachable(admin));
            format!("Its token: {token}\n\n  curl {status} --header {header}\n\n")
        });
        format!("Status page and explorer: http://{}/{}\n{token}", reachable(admin), audience(admin))
    });
    format!("\n{}Ctrl-C stops the gateway.", page.unwrap_or_default())
}
