//! `[admin]`: the listener for whoever runs the gateway, not for its callers.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};
use toml::Spanned;

use super::diagnostic::Finding;
use super::environment::Environment;
use super::file::SecretSource;
use super::files::Reader;
use super::model::ListenAddress;
use super::schema::by_hand;
use super::secret::Secret;
use super::validate::read_secret;

/// Where it listens, if the file does not say.
const DEFAULT: ([u8; 4], u16) = ([127, 0, 0, 1], 9180);

/// The listener for whoever runs the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens.
    pub address: ListenAddress,
    /// What has to be shown (`Authorization: Bearer`); always there unless it listens on loopback or a Unix socket.
    pub token: Option<Secret>,
}

impl ListenAddress {
    /// Whether nobody on another host can connect.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

/// The table as it is written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Written {
    /// An IP address and a port, `unix:` and a path, or `off`.
    #[schemars(with = "Address")]
    pub(super) address: Spanned<Address>,
    /// What has to be shown (Authorization: Bearer); needed unless the address is loopback or a Unix socket.
    #[schemars(with = "Option<SecretSource>")]
    pub(super) token: Option<Spanned<SecretSource>>,
}

impl Default for Written {
    fn default() -> Self {
        Self { address: Spanned::new(0..0, Address::default()), token: None }
    }
}

/// An address, or `off`.
#[derive(Clone, Debug)]
pub(super) enum Address {
    Off,
    At(ListenAddress),
}

impl Default for Address {
    fn default() -> Self {
        Self::At(ListenAddress::Tcp(SocketAddr::from(DEFAULT)))
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "off" {
            return Ok(Self::Off);
        }
        let address = super::file::Address::deserialize(de::value::StrDeserializer::<D::Error>::new(&text))?;
        Ok(Self::At(address.0))
    }
}

/// For the schema's default.
impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::At(address) => serializer.collect_str(address),
        }
    }
}

by_hand!(Address, { "type": "string", "pattern": "^(off|unix:.+|.+:[0-9]{1,5})$" });

/// `None` if it is switched off.
pub(super) fn read(written: &Written, reader: &Reader, environment: &Environment) -> Result<Option<Admin>, Finding> {
    let Address::At(address) = written.address.get_ref() else { return Ok(None) };
    let token = written.token.as_ref().map(|source| read_secret(source, reader, environment)).transpose()?;
    if token.is_none() && !address.is_local() {
        let message =
            "on an address that other hosts can reach, the admin listener needs a `token = { env = \"VARIABLE\" }`";
        return Err(Finding::at(written.address.span(), message));
    }
    Ok(Some(Admin { address: address.clone(), token }))
}
