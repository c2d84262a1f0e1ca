//! `[server]`: limits for callers' connections and requests.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::trusted_proxy::TrustedProxy;
use super::units::{AnyDuration, ByteSize, Count, PositiveDuration, PositiveSize, non_zero};

/// Smallest [`ServerConfig::max_unidentified_memory`]: less would refuse ordinary requests.
const SMALLEST_MEMORY: ByteSize = ByteSize::from_bytes(1 << 20);

/// Most workers: each has a thread, a runtime, sockets and a connection pool.
const MAX_WORKERS: u16 = 512;

/// Limits for callers' connections and requests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Worker threads, each with its own runtime, listeners and upstream connections; 0 starts one per core.
    #[serde(deserialize_with = "workers")]
    #[schemars(with = "u16", range(max = MAX_WORKERS))]
    pub workers: usize,
    /// Proxies in front of the gateway: addresses, networks (`10.0.0.0/8`), or `unix` for those on Unix sockets. Of a request that
    /// they forward, the peer is the last other address in `Forwarded` or `X-Forwarded-For`.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// Most connections of callers; when there are more, others close: first those over which no known caller has ever sent a
    /// request, then idle ones.
    #[serde(with = "Count")]
    pub max_connections: NonZeroU32,
    /// Memory that connections over which no known caller has ever sent a request hold together; when they need more, those
    /// that hold most close.
    #[serde(deserialize_with = "memory")]
    pub max_unidentified_memory: ByteSize,
    /// Time limit for a request head, 408 after it; and for the first byte of a connection.
    #[serde(with = "PositiveDuration")]
    pub header_timeout: Duration,
    /// An idle connection is closed after this time.
    #[serde(with = "PositiveDuration")]
    pub idle_timeout: Duration,
    /// Time limit for a request body; 408 after it.
    #[serde(with = "PositiveDuration")]
    pub body_timeout: Duration,
    /// Largest request head; 431 above it.
    #[serde(with = "PositiveSize")]
    pub max_header_size: ByteSize,
    /// Longest request target; 414 above it.
    #[serde(with = "PositiveSize")]
    pub max_uri_length: ByteSize,
    /// Largest body of a stop or rerun request; 413 above it.
    #[serde(with = "PositiveSize")]
    pub max_request_body: ByteSize,
    /// Time that requests in flight get to finish after SIGTERM.
    #[serde(with = "AnyDuration")]
    pub drain_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            workers: 0,
            max_connections: non_zero(16_384),
            max_unidentified_memory: ByteSize::from_bytes(64 << 20),
            trusted_proxies: Vec::new(),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            max_header_size: ByteSize::from_bytes(16 << 10),
            max_uri_length: ByteSize::from_bytes(8 << 10),
            max_request_body: ByteSize::from_bytes(1 << 20),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl ServerConfig {
    /// Replaces 0 workers by the number of cores.
    pub(super) fn resolve(&mut self) {
        if self.workers == 0 {
            self.workers = std::thread::available_parallelism().map_or(1, usize::from);
        }
    }
}

fn workers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let workers = u16::deserialize(deserializer)?;
    if workers > MAX_WORKERS {
        return Err(de::Error::custom(format!(
            "more than {MAX_WORKERS} workers only cost memory; 0 starts one per core"
        )));
    }
    Ok(workers.into())
}

fn memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    let size = ByteSize::deserialize(deserializer)?;
    if size < SMALLEST_MEMORY {
        return Err(D::Error::custom(format_args!("the memory has to be at least {SMALLEST_MEMORY}")));
    }
    Ok(size)
}
