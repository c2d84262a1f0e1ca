//! Connections to a server: its address, and limits of time and size.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderValue, Uri};
use serde::de::{Deserialize, Deserializer};
use serde::{Serialize, Serializer};

use super::schema_as::schema_as;

/// The address of a server, and limits for connections to it. Made by the tables that name a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Scheme, authority and the path below which all targets are: `https://api.gocobalt.io`.
    pub base_url: Uri,
    /// The proxy to connect through.
    pub proxy: Option<Proxy>,
    /// The certificate authorities to trust instead of the public ones.
    pub ca_file: Option<CaFile>,
    /// Limit for name look-up, TCP and TLS together.
    pub connect_timeout: Duration,
    /// Limit for the time to the response head.
    pub first_byte_timeout: Duration,
    /// Limit for the whole exchange.
    pub total_timeout: Duration,
    /// Largest response body that is read, in bytes.
    pub max_body: usize,
    /// Idle connections that each worker keeps.
    pub pool_idle_per_worker: usize,
    /// An idle connection is closed after this time.
    pub pool_idle_timeout: Duration,
    /// A connection is used for at most this time.
    pub max_connection_age: Duration,
    /// A GET that hears nothing for this time is suspected to be on a dead connection.
    pub suspect_after: Duration,
}

/// [`Connection::max_connection_age`] of servers for which there is no such setting.
pub(super) const MAX_CONNECTION_AGE: Duration = Duration::from_mins(5);
/// [`Connection::suspect_after`] of servers for which there is no such setting.
pub(super) const SUSPECT_AFTER: Duration = Duration::from_secs(1);

/// An HTTP proxy that opens tunnels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Scheme and authority, without credentials.
    pub url: Uri,
    /// The value of `Proxy-Authorization`.
    pub authorization: Option<HeaderValue>,
}

/// A PEM file of certificate authorities. Two are equal if their paths and contents are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaFile {
    /// Path of the file.
    pub path: PathBuf,
    /// SHA-256 of its content; `None` if it could not be read.
    pub digest: Option<[u8; 32]>,
}

impl<'de> Deserialize<'de> for CaFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        PathBuf::deserialize(deserializer).map(|path| Self { path, digest: None })
    }
}

impl Serialize for CaFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.path.serialize(serializer)
    }
}

schema_as!(CaFile, { "type": "string" });
