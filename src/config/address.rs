//! Addresses that a listener binds.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::mask;
use super::setting_path::{InvalidSetting, SettingPath};
use super::text::string_setting;

/// Longest path of a Unix socket (unix(7)).
const LONGEST_PATH: usize = 107;
/// Length of the temporary name that a socket has in its folder until it is published.
const TEMPORARY_NAME: usize = 20;

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

    /// Checks that a Unix socket can be made at its path.
    pub(super) fn check(&self, at: &SettingPath) -> Result<(), InvalidSetting> {
        let Self::Unix(path) = self else { return Ok(()) };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return Err(at.refuse(format!("there is no folder {} for this socket", mask::path(folder))));
        }
        if std::fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
            return Err(at.refuse("there is a file at this path that is no socket"));
        }
        if path.as_os_str().len().max(folder.as_os_str().len() + TEMPORARY_NAME) > LONGEST_PATH {
            let folder = LONGEST_PATH - TEMPORARY_NAME;
            return Err(at.refuse(format!(
                "the path of a Unix socket has at most {LONGEST_PATH} bytes, its folder at most {folder}"
            )));
        }
        Ok(())
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
