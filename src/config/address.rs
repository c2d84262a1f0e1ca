//! Addresses that a listener binds.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::text::string_setting;

/// A TCP address or the path of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `127.0.0.1:8080`
    Tcp(SocketAddr),
    /// `unix:/run/postern.sock`
    Unix(PathBuf),
}

impl ListenAddress {
    /// A TCP address in canonical form: an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2) is the IPv4 address that it names.
    #[must_use]
    pub fn tcp(address: SocketAddr) -> Self {
        Self::Tcp(match address.ip().to_canonical() {
            IpAddr::V4(ip) => SocketAddr::from((ip, address.port())),
            IpAddr::V6(_) => address,
        })
    }

    /// Returns true if only processes on this host can connect.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Reads an address as it is written in the file.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("the path after `unix:` is missing".to_owned()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::tcp).map_err(|_| {
                format!(
                    "`{text}` is no address; write an IP address and a port like \"127.0.0.1:8080\", or \"unix:/path\""
                )
            }),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

string_setting!(ListenAddress, "^(unix:.+|.+:[0-9]{1,5})$");
