//! `[fleet]`: the Redis or Valkey server on which several replicas share their budgets.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::connection::CaFile;
use super::resolver::Resolver;
use super::secret::Secret;
use super::setting_path::{InvalidSetting, SettingPath};
use super::text::string_setting;
use super::units::{Count, PositiveDuration};

/// Most replicas that one fleet can have.
const MAX_REPLICAS: u32 = 64;
/// Shortest secret of a fleet, in bytes.
const SHORTEST_SECRET: usize = 32;
/// Longest `command_timeout`: a replica that has heard nothing for 300 ms stops trusting what it knows, and a beat is due before.
const LONGEST_COMMAND: Duration = Duration::from_millis(150);
/// The port of Redis.
const REDIS_PORT: u16 = 6379;
/// The port of Sentinel.
const SENTINEL_PORT: u16 = 26379;

/// A fleet of replicas that share the budgets at Refold on a Redis or Valkey server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetConfig {
    /// The server: `redis://host:6379`, `rediss://host` for TLS, `unix:/path`, or `redis+sentinel://host1,host2/service` (TLS:
    /// `rediss+sentinel`); `/2` at the end of a redis URL is the number of a database.
    pub url: FleetUrl,
    /// The secret of the fleet, at least 32 characters, the same on all replicas. Entries in Redis are encrypted with it, and names in
    /// Redis derive from it.
    pub secret: Secret,
    /// The other secret during a rotation: entries that are encrypted with it can be read.
    pub next_secret: Option<Secret>,
    /// The secret with which the fleet began, once `secret` is replaced: names in Redis go on deriving from it.
    pub first_secret: Option<Secret>,
    /// The name of the fleet; fleets with different names share nothing. Letters, digits, dots, hyphens and underscores.
    #[serde(default)]
    pub name: FleetName,
    /// The largest number of replicas that will ever run at the same time, those of a rolling update included; at most 64.
    #[serde(with = "Count")]
    pub replicas: u32,
    /// User of the server's access control list.
    pub username: Option<String>,
    /// Password for the server.
    pub password: Option<Secret>,
    /// Password for the Sentinels, if they demand one.
    pub sentinel_password: Option<Secret>,
    /// PEM file of authorities to trust instead of the public ones; relative to the configuration file.
    pub ca_file: Option<CaFile>,
    /// Use of cached answers while Redis is away.
    #[serde(default)]
    pub when_cut_off: WhenCutOff,
    /// Limit for the answer to a command, after which Redis counts as away. At most 150ms.
    #[serde(default = "command_timeout", with = "PositiveDuration")]
    pub command_timeout: Duration,
    /// Limit for name look-up, TCP and TLS together, and again for the log-in.
    #[serde(default = "connect_timeout", with = "PositiveDuration")]
    pub connect_timeout: Duration,
}

/// The use of cached answers while a replica can't know what the others have dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhenCutOff {
    /// They count as stale: renewed within the replica's share of the budget, and served as the settings for stale answers allow.
    #[default]
    Stale,
    /// None is served.
    Refuse,
}

fn command_timeout() -> Duration {
    Duration::from_millis(50)
}

fn connect_timeout() -> Duration {
    Duration::from_millis(250)
}

impl FleetConfig {
    /// The secret from which names derive. It has to be the same on all replicas, also during a rotation.
    #[must_use]
    pub fn names_secret(&self) -> &Secret {
        self.first_secret.as_ref().unwrap_or(&self.secret)
    }

    pub(super) fn check(&mut self, at: &SettingPath, resolver: &Resolver<'_>) -> Result<(), InvalidSetting> {
        if self.replicas > MAX_REPLICAS {
            return Err(at.key("replicas").refuse(format!("a fleet has at most {MAX_REPLICAS} replicas")));
        }
        if self.command_timeout > LONGEST_COMMAND {
            return Err(at.key("command_timeout").refuse("a command may take at most 150ms"));
        }
        if self.username.is_some() && self.password.is_none() {
            return Err(at.key("username").refuse("a user needs a `password = { env = \"VARIABLE\" }`"));
        }
        if self.sentinel_password.is_some() && !matches!(self.url.server, FleetServer::Sentinel { .. }) {
            return Err(at.key("sentinel_password").refuse("only a Sentinel URL has Sentinels"));
        }
        for (name, secret) in [
            ("secret", Some(&mut self.secret)),
            ("next_secret", self.next_secret.as_mut()),
            ("first_secret", self.first_secret.as_mut()),
            ("password", self.password.as_mut()),
            ("sentinel_password", self.sentinel_password.as_mut()),
        ] {
            let Some(secret) = secret else { continue };
            resolver.secret(secret, &at.key(name))?;
            if name.ends_with("secret") && secret.expose().len() < SHORTEST_SECRET {
                let message = format!("the secret of a fleet has at least {SHORTEST_SECRET} characters");
                return Err(at.key(name).refuse(message));
            }
        }
        resolver.ca_file(&mut self.ca_file, &at.key("ca_file"))
    }
}

/// The name of a fleet, which is the hash tag of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetName(Arc<str>);

impl FleetName {
    fn parse(text: &str) -> Result<Self, String> {
        let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if (1..=64).contains(&text.len()) && text.bytes().all(is_name_byte) {
            Ok(Self(text.into()))
        } else {
            Err("a fleet's name has 1 to 64 letters, digits, dots, hyphens and underscores".to_owned())
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for FleetName {
    fn default() -> Self {
        Self("postern".into())
    }
}

impl fmt::Display for FleetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

string_setting!(FleetName, "^[A-Za-z0-9._-]{1,64}$");

/// The URL of a fleet's server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetUrl {
    text: Box<str>,
    server: FleetServer,
}

/// The place of a fleet's server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FleetServer {
    /// A server behind TCP.
    Tcp {
        /// Host and port.
        address: HostAndPort,
        /// True if the connection uses TLS.
        is_tls: bool,
        /// The number of the database.
        database: u16,
    },
    /// A server behind a Unix socket.
    Unix(PathBuf),
    /// The server that Sentinels name as the master of a service.
    Sentinel {
        /// Hosts and ports of the Sentinels.
        sentinels: Vec<HostAndPort>,
        /// The name of the service.
        service: Box<str>,
        /// True if the connections to Sentinels and server use TLS.
        is_tls: bool,
    },
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAndPort {
    /// A name or an IP address, without brackets.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
}

impl fmt::Display for HostAndPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl HostAndPort {
    fn parse(text: &str, default_port: u16) -> Result<Self, &'static str> {
        // The URL parser knows hosts and ports; `parse_server_url` refuses those that no client can connect to.
        let uri = super::url::parse_server_url(&format!("http://{text}"))?;
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        Ok(Self { host: host.into(), port: uri.port_u16().unwrap_or(default_port) })
    }
}

impl FleetUrl {
    /// The server that it names.
    #[must_use]
    pub fn server(&self) -> &FleetServer {
        &self.server
    }

    fn parse(text: &str) -> Result<Self, String> {
        let server = FleetServer::parse(text).map_err(|reason| {
            format!("{reason}; write a URL like \"redis://redis:6379\", \"rediss://redis\", \"unix:/run/redis.sock\" or \"redis+sentinel://sentinel1,sentinel2/mymaster\"")
        })?;
        Ok(Self { text: text.into(), server })
    }
}

impl FleetServer {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(path) = text.strip_prefix("unix:") {
            let is_absolute = path.starts_with('/') && path.len() > 1;
            return is_absolute.then(|| Self::Unix(path.into())).ok_or("a Unix socket needs an absolute path");
        }
        let (scheme, rest) = text.split_once("://").ok_or("this is no URL")?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err("credentials belong in `username` and `password`, not in the URL");
        }
        let is_tls = scheme.starts_with("rediss");
        match scheme {
            "redis" | "rediss" => {
                let database = if path.is_empty() { Ok(0) } else { path.parse() };
                let database = database.map_err(|_| "the path has to be the number of a database")?;
                Ok(Self::Tcp { address: HostAndPort::parse(authority, REDIS_PORT)?, is_tls, database })
            }
            "redis+sentinel" | "rediss+sentinel" => {
                if path.is_empty() || path.contains(['/', '?', '#']) {
                    return Err("the path has to be the name of the service that the Sentinels watch");
                }
                let sentinels = authority.split(',').map(|sentinel| HostAndPort::parse(sentinel, SENTINEL_PORT));
                Ok(Self::Sentinel { sentinels: sentinels.collect::<Result<_, _>>()?, service: path.into(), is_tls })
            }
            _ => Err("the scheme is not one of a Redis server"),
        }
    }
}

impl fmt::Display for FleetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

string_setting!(FleetUrl, "^(unix:/.+|rediss?://[^@]+|rediss?\\+sentinel://[^@]+/[^/?#]+)$");

#[cfg(test)]
mod tests {
    use super::*;

    fn host(host: &str, port: u16) -> HostAndPort {
        HostAndPort { host: host.into(), port }
    }

    #[test]
    fn a_url_names_a_server_a_socket_or_sentinels() {
        let tcp = |address, is_tls, database| FleetServer::Tcp { address, is_tls, database };
        let sentinel = |sentinels, is_tls| FleetServer::Sentinel { sentinels, service: "mymaster".into(), is_tls };
        for (text, server) in [
            ("redis://redis", tcp(host("redis", 6379), false, 0)),
            ("rediss://[::1]:7000/2", tcp(host("::1", 7000), true, 2)),
            ("unix:/run/redis.sock", FleetServer::Unix("/run/redis.sock".into())),
            ("redis+sentinel://a,b:7/mymaster", sentinel(vec![host("a", 26379), host("b", 7)], false)),
            ("rediss+sentinel://a/mymaster", sentinel(vec![host("a", 26379)], true)),
        ] {
            assert_eq!(FleetUrl::parse(text).map(|url| url.server), Ok(server), "{text}");
        }
        for bad in [
            "redis",
            "http://redis",
            "redis://",
            "redis://u:p@redis",
            "redis://redis/x",
            "redis://redis:0",
            "unix:redis.sock",
            "redis+sentinel://a",
            "redis+sentinel:///mymaster",
            "redis+sentinel://a,,b/mymaster",
        ] {
            assert!(FleetUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
