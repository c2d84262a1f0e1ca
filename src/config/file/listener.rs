//! `[[listeners]]` as it is written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::Access;
use super::scalar::Address;

/// Where callers connect.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Listener {
    /// An IP address and a port, or `unix:` and a path.
    #[schemars(with = "Address")]
    pub(in crate::config) address: Spanned<Address>,
    /// Take Refold session tokens (Authorization: Bearer) here, on behalf of this tenant.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) session_tokens: Option<Spanned<String>>,
    /// Whoever connects here is this tenant's caller, with no credential: for an app in the same pod. Loopback and Unix
    /// sockets alone.
    #[schemars(with = "Option<Trusted>")]
    pub(in crate::config) trusted: Option<Spanned<Trusted>>,
    /// TLS 1.2 and 1.3. The files are read again within a second of a change.
    #[schemars(with = "Option<Tls>")]
    pub(in crate::config) tls: Option<Spanned<Tls>>,
    /// Who may connect to a Unix socket. Left out, it is as the process makes it.
    #[schemars(with = "Option<SocketFile>")]
    pub(in crate::config) socket: Option<Spanned<SocketFile>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Tls {
    /// PEM file of the certificate and those between it and the authority.
    pub(in crate::config) certificate: String,
    /// PEM file of its private key.
    pub(in crate::config) key: String,
    /// PEM file of the authorities from which a client's certificate is taken.
    pub(in crate::config) client_ca: Option<String>,
    /// Whether clients may or have to show a certificate.
    #[serde(default)]
    pub(in crate::config) client_certificate: ClientCertificates,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum ClientCertificates {
    /// They may, where client_ca is set.
    #[default]
    Optional,
    /// They have to.
    Required,
}

/// Who may connect to a Unix socket.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct SocketFile {
    /// Octal permission bits, like "0660".
    #[schemars(regex(pattern = r"^0*[0-7]{1,3}$"))]
    pub(in crate::config) mode: Option<String>,
    /// A user's name or number.
    pub(in crate::config) owner: Option<String>,
    /// A group's name or number.
    pub(in crate::config) group: Option<String>,
}

/// A listener that is a credential itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Trusted {
    /// Whose caller everybody is who connects here.
    #[schemars(with = "String")]
    pub(in crate::config) tenant: Spanned<String>,
    /// Linked accounts that may be seen: exact ids, or a prefix and one `*`.
    #[serde(default = "every_account")]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(in crate::config) linked_accounts: Spanned<Vec<Spanned<String>>>,
    /// Whether executions may also be stopped and rerun.
    #[serde(default)]
    pub(in crate::config) access: Access,
}

fn every_account() -> Spanned<Vec<Spanned<String>>> {
    Spanned::new(0..0, vec![Spanned::new(0..0, "*".to_owned())])
}
