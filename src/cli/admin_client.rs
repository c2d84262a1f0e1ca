//! The client of the admin listener, for the commands that ask a running gateway.

use std::path::PathBuf;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode};
use serde_json::Value;
use zeroize::Zeroizing;

use super::exchange::{Address, TlsArguments, exchange};
use super::output::CommandError;
use crate::config::{Config, Environment, ListenAddress, SecretValues};
use crate::named_file::{self, MAX_SECRET};

/// The variable with the token, if neither a configuration nor a file has it.
const TOKEN_VARIABLE: &str = "POSTERN_ADMIN_TOKEN";
/// The admin listener's address by default.
const DEFAULT_ADDRESS: &str = "127.0.0.1:9180";

/// The admin listener to ask, and the token for it.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct AdminArguments {
    /// Address of the admin listener: host and port, `https://` before them, or `unix:` and a path [default: 127.0.0.1:9180].
    #[arg(long, value_name = "ADDRESS", value_parser = Address::parse)]
    admin: Option<Address>,
    /// Configuration file, for the address and the token of its `[admin]`; no other secret of it is read.
    #[arg(long, value_name = "FILE", env = "POSTERN_CONFIG")]
    config: Option<PathBuf>,
    /// File with the token; without it and a configuration, the variable POSTERN_ADMIN_TOKEN is the token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsArguments,
}

/// A client of one admin listener.
pub(super) struct AdminClient {
    address: Address,
    token: Option<Zeroizing<String>>,
    tls: TlsArguments,
}

impl AdminArguments {
    /// Finds the address and the token.
    ///
    /// # Errors
    /// If a file can't be used, or the configuration has no admin listener.
    pub(super) fn client(&self) -> Result<AdminClient, CommandError> {
        let environment = Environment::from_process();
        // With an address and a token file there is nothing to look for.
        let config = self.config.as_ref().filter(|_| self.admin.is_none() || self.token_file.is_none());
        let load = |path: &PathBuf| Config::load_with(path, &environment, SecretValues::OnlyAdminToken);
        let config = config.map(load).transpose()?;
        let address = match (&self.admin, &config) {
            (Some(address), _) => address.clone(),
            (None, None) => Address::parse(DEFAULT_ADDRESS)?,
            (None, Some(config)) => {
                let address = config.admin.listen_address();
                reachable(address.ok_or("the configuration has switched the admin listener off")?)
            }
        };
        let token = match (&self.token_file, &config) {
            (Some(path), _) => {
                let content = named_file::read(path, MAX_SECRET)
                    .map_err(|error| format!("the token file {} can't be read: {error}", path.display()))?;
                Some(Zeroizing::new(String::from_utf8_lossy(&content).trim().to_owned()))
            }
            (None, Some(config)) => config.admin.token.as_ref().map(|token| Zeroizing::new(token.expose().to_owned())),
            (None, None) => environment.text(TOKEN_VARIABLE)?.map(|token| Zeroizing::new(token.to_owned())),
        };
        Ok(AdminClient { address, token, tls: self.tls.clone() })
    }
}

/// The address to connect to for one to listen on: a wildcard is every address, loopback too.
fn reachable(address: &ListenAddress) -> Address {
    match address {
        ListenAddress::Unix(path) => Address::Unix(path.clone()),
        ListenAddress::Tcp(address) if address.ip().is_unspecified() => {
            let host = if address.is_ipv4() { "127.0.0.1" } else { "[::1]" };
            Address::Plain(format!("{host}:{}", address.port()))
        }
        ListenAddress::Tcp(address) => Address::Plain(address.to_string()),
    }
}

impl AdminClient {
    /// Reads a resource.
    ///
    /// # Errors
    /// If there is no response, or it is an error.
    pub(super) fn get(&self, path: &'static str) -> Result<Value, CommandError> {
        self.ask(Method::GET, path, Bytes::new())
    }

    /// Sends JSON to a resource.
    ///
    /// # Errors
    /// If there is no response, or it is an error.
    pub(super) fn post(&self, path: &'static str, body: &Value) -> Result<Value, CommandError> {
        self.ask(Method::POST, path, body.to_string().into())
    }

    fn ask(&self, method: Method, path: &'static str, body: Bytes) -> Result<Value, CommandError> {
        let address = &self.address;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = http::Uri::from_static(path);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(token) = &self.token {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.as_str()))
                .map_err(|_| "the token has characters that a header can't have")?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let response = exchange(address, &self.tls, request)?;
        let json: Option<Value> = serde_json::from_slice(response.body()).ok();
        let status = response.status();
        match (status, json) {
            (StatusCode::OK, Some(json)) => Ok(json),
            (StatusCode::UNAUTHORIZED, _) => {
                let sent = if self.token.is_some() { "does not accept this token" } else { "asks for a token" };
                let advice = "--config names the gateway's configuration, --token-file a file with the token";
                Err(format!("the admin listener at {address} {sent} (401): {advice}").into())
            }
            (_, Some(Value::Object(error))) if error.get("message").is_some_and(Value::is_string) => {
                let message = error["message"].as_str().unwrap_or_default();
                Err(format!("the admin listener at {address} answers {}: {message}", status.as_u16()).into())
            }
            _ => {
                Err(format!("{address}{path} does not answer as an admin listener does: status {}", status.as_u16())
                    .into())
            }
        }
    }
}
