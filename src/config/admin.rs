//! `[admin]`: the listener for operators, not for callers.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::address::ListenAddress;
use super::endpoint::Endpoint;
use super::resolver::Resolver;
use super::secret::Secret;
use super::setting_path::{InvalidSetting, SettingPath};
use super::text::string_setting;

/// The listener for operators: probes, metrics, status page, purge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// An IP address and a port, `unix:` and a path, or `off`.
    pub address: AdminAddress,
    /// Token that operators send (Authorization: Bearer). Required unless the address is loopback or a Unix socket.
    pub token: Option<Secret>,
}

/// The address of the admin listener, or `off`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// There is no admin listener.
    Off,
    /// The listener's address.
    At(ListenAddress),
}

impl AdminConfig {
    /// The address to bind; `None` if the listener is off.
    #[must_use]
    pub fn listen_address(&self) -> Option<&ListenAddress> {
        match &self.address {
            AdminAddress::Off => None,
            AdminAddress::At(address) => Some(address),
        }
    }

    /// The endpoint to bind; `None` if the listener is off.
    #[must_use]
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.listen_address().map(|address| Endpoint { address: address.clone(), ipv6_only: false })
    }

    pub(super) fn check(&mut self, at: &SettingPath, resolver: &Resolver<'_>) -> Result<(), InvalidSetting> {
        let Some(address) = self.listen_address() else {
            self.token = None;
            return Ok(());
        };
        if self.token.is_none() && !address.is_local() {
            let message =
                "on an address that other hosts can reach, the admin listener needs a `token = { env = \"VARIABLE\" }`";
            return Err(at.key("address").refuse(message));
        }
        address.check(&at.key("address"))?;
        self.token.iter_mut().try_for_each(|token| resolver.secret(token, &at.key("token")))
    }
}

impl Default for AdminAddress {
    fn default() -> Self {
        Self::At(ListenAddress::Tcp(([127, 0, 0, 1], 9180).into()))
    }
}

impl AdminAddress {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "off" { Ok(Self::Off) } else { ListenAddress::parse(text).map(Self::At) }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

string_setting!(AdminAddress, "^(off|unix:.+|.+:[0-9]{1,5})$");
