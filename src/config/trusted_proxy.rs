//! `server.trusted_proxies`: the proxies in front of the gateway that name the peers which connect to them.

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::text::string_setting;

/// Length of the prefix that IPv4 addresses have as IPv6 addresses (RFC 4291, 2.5.5.2).
const MAPPED_PREFIX: u8 = 96;

/// A proxy whose `Forwarded` and `X-Forwarded-For` fields are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedProxy {
    /// `10.0.0.0/8`, `10.0.0.7` or `fd00::/8`: the proxies with an address in this network.
    Network(IpNet),
    /// `unix`: the proxies that connect over a Unix socket.
    UnixSocket,
}

impl TrustedProxy {
    /// Returns true if the proxies with this address are meant. An IPv4 address is compared as one in either notation.
    #[must_use]
    pub fn includes(&self, address: IpAddr) -> bool {
        matches!(self, Self::Network(network) if network.contains(&address.to_canonical()))
    }

    /// Reads a proxy as it is written in the file.
    fn parse(text: &str) -> Result<Self, String> {
        if text == "unix" {
            return Ok(Self::UnixSocket);
        }
        let network = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse::<IpNet>().map_err(|_| {
                format!(
                    "`{text}` is no proxy; write an IP address, a network like \"10.0.0.0/8\", or \"unix\" for the \
                     proxies on Unix sockets"
                )
            })?,
        };
        if network.addr() != network.network() {
            let meant = network.trunc();
            return Err(format!("`{text}` has bits beyond its prefix; did you mean \"{meant}\", or a single address?"));
        }
        Ok(Self::Network(unmapped(network)))
    }
}

/// Returns the IPv4 network for one that is written as IPv6.
fn unmapped(network: IpNet) -> IpNet {
    match (network.addr().to_canonical(), network.prefix_len().checked_sub(MAPPED_PREFIX)) {
        (IpAddr::V4(address), Some(length)) if network.addr().is_ipv6() => {
            Ipv4Net::new(address, length).map_or(network, IpNet::V4)
        }
        _ => network,
    }
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => network.addr().fmt(f),
            Self::Network(network) => network.fmt(f),
            Self::UnixSocket => f.write_str("unix"),
        }
    }
}

string_setting!(TrustedProxy, "^(unix|[0-9A-Fa-f.:]+(/[0-9]{1,3})?)$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_an_address_a_network_or_unix() {
        for (text, written, includes, excludes) in [
            ("10.0.0.0/8", "10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.0.0.7", "10.0.0.7", "::ffff:10.0.0.7", "10.0.0.8"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8", "10.1.2.3", "::1"),
            ("fd00::/8", "fd00::/8", "fdff::1", "fe00::1"),
            ("::1", "::1", "::1", "::2"),
            ("0.0.0.0/0", "0.0.0.0/0", "203.0.113.1", "2001:db8::1"),
        ] {
            let proxy = TrustedProxy::parse(text).expect(text);
            let address = |text: &str| text.parse().expect("an address");
            assert_eq!(proxy.to_string(), written);
            assert!(proxy.includes(address(includes)) && !proxy.includes(address(excludes)), "{text}");
        }
        assert_eq!(TrustedProxy::parse("unix"), Ok(TrustedProxy::UnixSocket));
    }

    #[test]
    fn a_wrong_proxy_is_refused_with_what_is_accepted() {
        for (text, part) in [
            ("", "write an IP address"),
            ("10.0.0.0/33", "write an IP address"),
            ("10.0.0.7:80", "write an IP address"),
            ("proxy.example", "write an IP address"),
            ("unix:/run/x.sock", "write an IP address"),
            ("10.1.2.3/8", "did you mean \"10.0.0.0/8\""),
            ("fd00::1/8", "did you mean \"fd00::/8\""),
        ] {
            let error = TrustedProxy::parse(text).expect_err(text);
            assert!(error.contains(part), "{error}");
        }
    }
}
