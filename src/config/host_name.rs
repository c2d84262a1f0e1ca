//! Names of hosts, without a port.

use std::fmt;

use super::text::string_setting;

/// A host name or an IP address, in lower case; an IPv6 address is in brackets, as in `Host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(Box<str>);

impl HostName {
    /// Returns whether a request names this host.
    #[must_use]
    pub fn is(&self, host: &str) -> bool {
        self.0.eq_ignore_ascii_case(host)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let is_address = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
        let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if is_address || !text.is_empty() && text.bytes().all(is_name_byte) {
            Ok(Self(text.to_ascii_lowercase().into()))
        } else {
            Err("this is no host; write a name or an IP address alone, like \"postern.internal\", without scheme and port".to_owned())
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

string_setting!(HostName, "^([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\])$");
