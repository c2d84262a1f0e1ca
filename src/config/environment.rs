//! The environment: secrets, and overrides of single settings (`POSTERN_UPSTREAM_BASE_URL`).

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::diagnostic::ConfigError;
use super::file::File;
use super::mask;
use crate::suggest::suggest;

const PREFIX: &str = "POSTERN_";
/// Variables that other parts of the program read.
const RESERVED: [&str; 2] = ["POSTERN_CONFIG", "POSTERN_LOG"];

/// Environment variables, read once. Passed in, so that a test needs none of the process's own.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

/// Names alone: the values are secrets.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Environment {
    /// What this process was given. Variables that are not UTF-8 are left out.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the process's environment")]
    pub fn from_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    /// Sets a variable.
    pub fn insert(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Puts overrides into a file. `secrets` are the variables that the file itself names.
    pub(super) fn apply(&self, file: &mut File, secrets: &[&str]) -> Result<(), ConfigError> {
        for (name, value) in self.0.range(PREFIX.to_owned()..) {
            let Some(setting) = name.strip_prefix(PREFIX) else { break };
            if RESERVED.contains(&name.as_str()) || secrets.contains(&name.as_str()) {
                continue;
            }
            set(file, setting, value).map_err(|refusal| match refusal {
                Refusal::Unknown => {
                    let names = SETTINGS.map(|setting| format!("{PREFIX}{setting}"));
                    let suggestion = suggest(name, names.iter().map(String::as_str));
                    let suggestion = suggestion.map_or(String::new(), |name| format!("; did you mean {name}?"));
                    ConfigError::variable(name, format!("there is no such setting{suggestion}"))
                }
                Refusal::Value(message) => ConfigError::variable(name, message),
            })?;
        }
        Ok(())
    }
}

enum Refusal {
    Unknown,
    Value(String),
}

/// Reads a value as it would stand in the file, with or without quotes.
fn read<T: DeserializeOwned>(value: &str) -> Result<T, Refusal> {
    #[derive(serde::Deserialize)]
    struct Holder<T> {
        value: T,
    }
    let holder = |text: &str| toml::from_str::<Holder<T>>(&format!("value = {text}"));
    let quoted = toml::Value::from(value).to_string();
    holder(value)
        .or_else(|_| holder(&quoted))
        .map(|holder| holder.value)
        .map_err(|error| Refusal::Value(mask::message(error.message(), value)))
}

macro_rules! settings {
    ($($name:literal => $($field:ident).+, $wrap:expr;)+) => {
        /// Settings that can be overridden, without the prefix.
        const SETTINGS: [&str; [$($name),+].len()] = [$($name),+];

        fn set(file: &mut File, setting: &str, value: &str) -> Result<(), Refusal> {
            match setting {
                $($name => file.$($field).+ = read(value).map($wrap)?,)+
                _ => return Err(Refusal::Unknown),
            }
            Ok(())
        }
    };
}

settings! {
    "ADMIN_ADDRESS" => admin.address, |value| toml::Spanned::new(0..0, value);
    "SERVER_WORKERS" => server.workers, |value| value;
    "SERVER_HEADER_TIMEOUT" => server.header_timeout, |value| value;
    "SERVER_IDLE_TIMEOUT" => server.idle_timeout, |value| value;
    "SERVER_BODY_TIMEOUT" => server.body_timeout, |value| value;
    "SERVER_MAX_HEADER_SIZE" => server.max_header_size, |value| value;
    "SERVER_MAX_URI_LENGTH" => server.max_uri_length, |value| value;
    "SERVER_MAX_REQUEST_BODY" => server.max_request_body, |value| value;
    "SERVER_DRAIN_TIMEOUT" => server.drain_timeout, |value| value;
    "UPSTREAM_BASE_URL" => upstream.base_url, |value| value;
    "UPSTREAM_DIALECT" => upstream.dialect, |value| value;
    "UPSTREAM_CA_FILE" => upstream.ca_file, Some;
    "UPSTREAM_CONNECT_TIMEOUT" => upstream.connect_timeout, |value| value;
    "UPSTREAM_FIRST_BYTE_TIMEOUT" => upstream.first_byte_timeout, |value| value;
    "UPSTREAM_TOTAL_TIMEOUT" => upstream.total_timeout, |value| value;
    "UPSTREAM_MAX_RESPONSE_BODY" => upstream.max_response_body, |value| value;
    "UPSTREAM_POOL_IDLE_PER_WORKER" => upstream.pool_idle_per_worker, |value| value;
    "UPSTREAM_POOL_IDLE_TIMEOUT" => upstream.pool_idle_timeout, |value| value;
    "UPSTREAM_MAX_CONCURRENT" => upstream.max_concurrent, |value| value;
    "UPSTREAM_RETRIES" => upstream.retries, |value| value;
    "UPSTREAM_BREAKER_FAILURES" => upstream.breaker.failures, |value| value;
    "UPSTREAM_BREAKER_OPEN_FOR" => upstream.breaker.open_for, |value| value;
    "QUERY_MAX_LIMIT" => query.max_limit, |value| value;
    "QUERY_UNKNOWN_PARAMETERS" => query.unknown_parameters, |value| value;
    "QUERY_IGNORED_PARAMETERS" => query.ignored_parameters, |value| value;
    "CACHE_CAPACITY" => cache.capacity, |value| value;
    "CACHE_HONOUR_NO_STORE" => cache.honour_no_store, |value| value;
    "CACHE_COLLAPSE" => cache.collapse, |value| value;
    "CACHE_DERIVE" => cache.derive, |value| value;
    "CACHE_FRESHNESS_LIVE" => cache.freshness.live, Some;
    "CACHE_STALE_WHILE_REVALIDATE" => cache.stale.while_revalidate, Some;
    "CACHE_STALE_IF_ERROR" => cache.stale.if_error, Some;
    "CACHE_FRESHNESS_RECENT" => cache.freshness.recent, Some;
    "CACHE_FRESHNESS_CLOSED" => cache.freshness.closed, Some;
    "LIMITS_CLIENT_PER_SECOND" => limits.client.per_second, Some;
    "LIMITS_CLIENT_BURST" => limits.client.burst, Some;
    "LIMITS_CLIENT_MAX_PARTITIONS" => limits.client.max_partitions, Some;
    "LIMITS_UPSTREAM_PER_SECOND" => limits.upstream.per_second, Some;
    "LIMITS_UPSTREAM_BURST" => limits.upstream.burst, Some;
    "LIMITS_UPSTREAM_MAX_WAIT" => limits.upstream.max_wait, Some;
    "LIMITS_UPSTREAM_MAX_QUEUE" => limits.upstream.max_queue, Some;
    "LOG_REQUESTS" => log.requests, |value| value;
    "LOG_SAMPLE" => log.sample, |value| value;
    "LOG_LINKED_ACCOUNTS" => log.linked_accounts, |value| value;
    "TRACES_ENDPOINT" => traces.endpoint, Some;
    "TRACES_SAMPLE" => traces.sample, |value| value;
    "TRACES_SERVICE_NAME" => traces.service_name, |value| value;
}
