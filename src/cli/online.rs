//! `postern check --online`: asks the servers that a configuration names: Refold about each org key, the issuers for their keys, the
//! collector of spans, and the server of the fleet.
//!
//! The servers are asked at the same time, a bounded number of them, each for a bounded time, with the code that the gateway uses.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::iter;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode};
use tokio::time::timeout;

use super::output::CommandError;
use crate::caller::{FetchKeysError, fetch_keys};
use crate::config::{
    Config, Connection, Finding, FleetConfig, NamedServer, RemoteJwks, Secret, ServerRole, SpanExport,
};
use crate::fleet::probe;
use crate::http_client::{Client, ConnectStep, TransportError, buffered};
use crate::upstream::ask_about_key;

/// Longest time for one server, whatever the time limits of its table are.
const LONGEST: Duration = Duration::from_secs(10);
/// Most servers that are asked at the same time.
const AT_ONCE: usize = 16;

/// The meaning of a server's answer for the configuration.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The server is as the gateway needs it.
    Good(String),
    /// The answer leaves open whether the server is as the gateway needs it.
    Doubtful(Finding),
    /// The gateway can't use the server.
    Bad(Finding),
}

/// An answer before it has its place in the configuration.
enum Answer {
    Good(String),
    Doubtful(String),
    Bad(String),
    /// Refold can't be reached: one finding for all org keys.
    NoRefold(String),
}

/// Asks all servers that a valid configuration names.
///
/// # Errors
/// If there is no runtime, or a file of authorities has changed since the configuration was read.
pub(super) fn ask(config: &Config) -> Result<Vec<Outcome>, CommandError> {
    let refold =
        Refold { client: Client::new(&config.upstream.connection())?, url: url(&config.upstream.connection()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answers: Vec<(&NamedServer, Answer)> = runtime.block_on(async {
        let asked = iter(config.servers()).map(|server| {
            let answer = answer_of(&server.role, &refold);
            async move { Some((server, answer.await?)) }
        });
        asked.buffered(AT_ONCE).filter_map(std::future::ready).collect().await
    });
    let mut outcomes = Vec::new();
    let unreachable = answers.iter().find_map(|(_, answer)| match answer {
        Answer::NoRefold(why) => Some(why),
        _ => None,
    });
    let refold = config.servers().iter().find(|server| matches!(server.role, ServerRole::Refold(_)));
    outcomes.extend(refold.zip(unreachable).map(|(server, why)| Outcome::Bad(server.finding(why.clone()))));
    outcomes.extend(answers.into_iter().filter_map(|(server, answer)| match answer {
        Answer::Good(text) => Some(Outcome::Good(text)),
        Answer::Doubtful(message) => Some(Outcome::Doubtful(server.finding(message))),
        Answer::Bad(message) => Some(Outcome::Bad(server.finding(message))),
        Answer::NoRefold(_) => None,
    }));
    Ok(outcomes)
}

/// The client for Refold, and its address in messages.
struct Refold {
    client: Client,
    url: String,
}

/// Asks one server. `None` for Refold's address alone: each org key is a question to it.
async fn answer_of(role: &ServerRole, refold: &Refold) -> Option<Answer> {
    Some(match role {
        ServerRole::Refold(_) => return None,
        ServerRole::OrgKey { tenant, setting, key } => {
            refold.ask(&format!("`{setting}` of tenant `{tenant}`"), key).await
        }
        ServerRole::Issuer { issuer, jwks } => ask_issuer(issuer, jwks).await,
        ServerRole::Fleet(fleet) => ask_fleet(fleet).await,
        ServerRole::Collector(export) => ask_collector(export).await,
    })
}

/// Connects to the fleet's server as a replica would. Each step has a limit of its own.
async fn ask_fleet(fleet: &FleetConfig) -> Answer {
    match probe(fleet).await {
        Ok(report) => Answer::Good(format!(
            "the fleet's server ({}) has version {} and takes the scripts",
            fleet.url, report.version
        )),
        Err(error) => Answer::Bad(format!("the fleet's server ({}): {error}", fleet.url)),
    }
}

impl Refold {
    async fn ask(&self, name: &str, key: &Secret) -> Answer {
        let Self { client, url } = self;
        let header = HeaderValue::from_str(key.expose()).expect("the configuration checks its secrets");
        let response = match timeout(LONGEST, ask_about_key(client, header, LONGEST)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Answer::NoRefold(unreachable(url, &error)),
            Err(_) => return Answer::NoRefold(too_slow(url)),
        };
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(response.body()).is_ok();
        match response.status() {
            StatusCode::OK if is_json => Answer::Good(format!("Refold ({url}) accepts {name}")),
            StatusCode::UNAUTHORIZED => Answer::Bad(format!(
                "Refold ({url}) refuses {name} with 401: check that it is the org's API key, of the environment that base_url is for"
            )),
            StatusCode::TOO_MANY_REQUESTS => {
                Answer::Doubtful(format!("Refold ({url}) answered 429, which says nothing about {name}: try again"))
            }
            status if status.is_server_error() || status == StatusCode::FORBIDDEN => Answer::Doubtful(format!(
                "Refold ({url}) answered {}, which says nothing about {name}: try again",
                status.as_u16()
            )),
            status => Answer::NoRefold(format!(
                "{url} does not answer as Refold does ({} to a request for linked accounts): check base_url, its path too",
                status.as_u16()
            )),
        }
    }
}

async fn ask_issuer(issuer: &str, jwks: &RemoteJwks) -> Answer {
    let url = format!("{}{}", url(&jwks.connection), jwks.target.path());
    let fetched = match Client::new(&jwks.connection) {
        Ok(client) => timeout(LONGEST, fetch_keys(&client, &jwks.target)).await,
        Err(error) => return Answer::Bad(format!("{url}: {error}")),
    };
    match fetched {
        Ok(Ok(keys)) => Answer::Good(format!("issuer `{issuer}` ({url}) has {} usable keys", keys.len())),
        Ok(Err(FetchKeysError::Transport(error))) => Answer::Bad(unreachable(&url, &error)),
        Ok(Err(error)) => Answer::Bad(format!("{url}: {error}: check that the URL is the issuer's `jwks_uri`")),
        Err(_) => Answer::Bad(too_slow(&url)),
    }
}

/// Sends the collector an export of no span.
async fn ask_collector(export: &SpanExport) -> Answer {
    let url = format!("{}{}", url(&export.connection), export.target.path());
    let client = match Client::new(&export.connection) {
        Ok(client) => client,
        Err(error) => return Answer::Bad(format!("{url}: {error}")),
    };
    // In protobuf an export of no span is empty.
    let mut request = Request::new(buffered(Bytes::new()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = export.target.clone().into();
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    export.add_headers(request.headers_mut());
    match timeout(LONGEST, client.send(request, LONGEST)).await {
        Ok(Ok(response)) if response.status().is_success() => {
            Answer::Good(format!("the collector ({url}) takes spans"))
        }
        Ok(Ok(response)) => {
            let status = response.status();
            let message = format!("the collector ({url}) answered {} to an export of no span", status.as_u16());
            match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    Answer::Bad(format!("{message}: check `headers` in [traces]"))
                }
                StatusCode::TOO_MANY_REQUESTS => Answer::Doubtful(format!("{message}: try again")),
                status if status.is_server_error() => Answer::Doubtful(format!("{message}: try again")),
                _ => Answer::Bad(format!(
                    "{message}: check that the endpoint takes OTLP over HTTP (port 4318, not 4317)"
                )),
            }
        }
        Ok(Err(error)) => Answer::Bad(unreachable(&url, &error)),
        Err(_) => Answer::Bad(too_slow(&url)),
    }
}

/// The address of a server, and the proxy on the way to it.
fn url(connection: &Connection) -> String {
    let url = connection.base_url.to_string();
    let url = url.trim_end_matches('/');
    match &connection.proxy {
        Some(proxy) => format!("{url} through the proxy {}", proxy.url.to_string().trim_end_matches('/')),
        None => url.to_owned(),
    }
}

fn too_slow(url: &str) -> String {
    format!("{url}: no complete answer within {} s", LONGEST.as_secs())
}

/// The message for a server that gave no complete response, with what to look at.
fn unreachable(url: &str, error: &TransportError) -> String {
    let advice = match error.connect_step() {
        Some(ConnectStep::LookUp) => "check the name, and the DNS of this machine",
        Some(ConnectStep::Tcp) => "check host and port, firewalls, and whether a proxy is needed (HTTPS_PROXY)",
        Some(ConnectStep::ProxyTls | ConnectStep::Tunnel) => {
            "check the proxy (`proxy`, HTTPS_PROXY, NO_PROXY) and what it permits"
        }
        Some(ConnectStep::Tls) => {
            "check the host name and the server's certificate; a private authority has to be named by `ca_file`"
        }
        None => "check that an HTTP server of this kind listens there, and http or https",
    };
    format!("{url}: {error}: {advice}")
}
