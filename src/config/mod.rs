//! The configuration: a file per table, with its type, defaults and checks; and the reading of file and environment into a
//! checked [`Config`].
//!
//! `load.rs` has the steps: parse the file into a tree that knows where each value comes from (`tree.rs`), merge the
//! environment's overrides into it (`overrides.rs`), deserialise it into the tables' types (`root.rs` and the tables), check
//! them, and resolve secrets, paths and references (`resolver.rs`).
//!
//! A setting stands in three places: its type, with default and check; the example `config/postern.toml`; and the JSON Schema,
//! which is generated from the types. `/config`, the variables for overrides and the list of changes are derived from those.

mod account_pattern;
mod address;
mod admin;
mod cache;
mod client_certificate;
mod client_key;
mod connection;
mod cors;
mod diagnostic;
mod diff;
mod endpoint;
mod environment;
mod files;
mod fleet;
mod host_name;
mod issuer;
mod issuer_keys;
mod kinds;
mod limits;
mod listener;
mod load;
mod log;
mod mask;
mod named_server;
mod named_servers;
mod operations;
mod otel_variables;
mod overrides;
mod pass_through;
mod remarks;
mod request_directive;
mod resolver;
mod root;
mod schema;
mod schema_as;
mod secret;
mod server;
mod service_variables;
mod setting_path;
mod socket_file;
mod tenant;
mod tenant_ref;
mod text;
mod traces;
mod tree;
mod trusted_proxy;
mod units;
mod upstream;
mod url;
mod watch;

#[cfg(test)]
mod tests;

pub use account_pattern::{Access, AccountPattern};
pub use address::ListenAddress;
pub use admin::{AdminAddress, AdminConfig};
pub use cache::{Cache, Derive, Freshness, Stale};
pub use client_certificate::ClientCertificate;
pub use client_key::ClientKey;
pub use connection::{CaFile, Connection};
pub use cors::CorsConfig;
pub use diagnostic::{ConfigError, Finding};
pub use diff::Changes;
pub use endpoint::Endpoint;
pub use environment::Environment;
pub use fleet::{FleetConfig, FleetName, FleetServer, FleetUrl, HostAndPort, WhenCutOff};
pub use host_name::HostName;
pub use issuer::{ClaimPath, Issuer, TenantOf};
pub use issuer_keys::{IssuerKeys, KeyOrigin, RemoteJwks};
pub use limits::{ClientLimits, Limits, Rate, UpstreamLimits};
pub use listener::{ListenerConfig, Trusted};
pub use log::{AccountNaming, Log, LoggedRequests};
pub(crate) use mask::path as masked_path;
pub use named_server::{NamedServer, ServerRole};
pub use operations::Scope;
pub use otel_variables::SpanBatches;
pub use pass_through::{PassThrough, PathPattern};
pub use request_directive::RequestDirective;
pub use resolver::SecretValues;
pub use root::Config;
pub use schema::schema;
pub use secret::{Secret, SecretSource};
pub use server::ServerConfig;
pub use socket_file::SocketFile;
pub use tenant::{TenantConfig, TenantMode};
pub use tenant_ref::TenantRef;
pub use traces::{SpanExport, Traces};
pub use trusted_proxy::TrustedProxy;
pub use units::ByteSize;
pub use upstream::{BreakerSettings, UpstreamConfig, VerifyKey};
pub(crate) use url::parse_server_url;
pub use watch::WatchedConfig;
