//! The peer that sent a request: the other end of its connection or, behind trusted proxies, the one that they name.
//!
//! Each proxy adds the address that connected to it to `Forwarded` (RFC 7239) or `X-Forwarded-For`, behind what it has received.
//! So only the end of these fields is believed: from the right, the addresses of trusted proxies are passed over, and the first
//! other one is the peer. The rest was written by the peer. Where an entry can't be read, the peer is the proxy that wrote it.
//! If both fields name peers and the peers differ, a proxy has passed one of the fields on as it came, and only the connection is
//! believed.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName, HeaderValue};

use crate::config::TrustedProxy;

/// Names the addresses of a request's peers, the last one last.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Bits of an IPv6 address that its network has: a host chooses the others itself (RFC 4291, 2.5.4).
const NETWORK_BITS: u128 = u128::MAX << 64;

/// The other end of a connection, or the sender of a request that a proxy names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Peer {
    /// An IP address; an IPv4 address is never written as IPv6.
    Address(IpAddr),
    /// A process of this user on this host, over a Unix socket.
    LocalUser(u32),
    /// The system does not tell.
    #[default]
    Unknown,
}

impl Peer {
    /// The peer with an address.
    #[must_use]
    pub fn at(address: IpAddr) -> Self {
        Self::Address(address.to_canonical())
    }

    /// Returns the sender of a request that arrived on a connection with this peer.
    #[must_use]
    pub fn sender(self, headers: &HeaderMap, proxies: &[TrustedProxy]) -> Self {
        if !self.is_trusted(proxies) {
            return self;
        }
        let read = |name: &HeaderName, read: fn(&str) -> Vec<Option<IpAddr>>| {
            let values = headers.get_all(name);
            values.iter().next()?;
            let text = |value: &HeaderValue| value.to_str().map_or_else(|_| vec![None], read);
            Some(self.last_untrusted(&values.iter().flat_map(text).collect::<Vec<_>>(), proxies))
        };
        match (read(&FORWARDED, forwarded), read(&X_FORWARDED_FOR, x_forwarded_for)) {
            (Some(peer), None) | (None, Some(peer)) => peer,
            (Some(one), Some(other)) if one == other => one,
            _ => self,
        }
    }

    /// Returns the part of the network that counts as one peer: an IPv4 address, the /64 of an IPv6 address, or a user.
    #[must_use]
    pub fn network(self) -> Self {
        match self {
            Self::Address(IpAddr::V6(address)) => {
                Self::Address(Ipv6Addr::from_bits(address.to_bits() & NETWORK_BITS).into())
            }
            _ => self,
        }
    }

    fn is_trusted(self, proxies: &[TrustedProxy]) -> bool {
        proxies.iter().any(|proxy| match self {
            Self::Address(address) => proxy.includes(address),
            Self::LocalUser(_) => *proxy == TrustedProxy::UnixSocket,
            Self::Unknown => false,
        })
    }

    /// Returns the last of `hops` that is no trusted proxy. `self` is the trusted proxy that wrote the last one.
    fn last_untrusted(self, hops: &[Option<IpAddr>], proxies: &[TrustedProxy]) -> Self {
        let mut peer = self;
        for hop in hops.iter().rev() {
            let Some(address) = hop else { break };
            peer = Self::at(*address);
            if !peer.is_trusted(proxies) {
                break;
            }
        }
        peer
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::LocalUser(user) => write!(f, "uid:{user}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// Reads the addresses of `X-Forwarded-For`; `None` stands for an entry that is no address.
fn x_forwarded_for(value: &str) -> Vec<Option<IpAddr>> {
    value.split(',').map(str::trim).filter(|hop| !hop.is_empty()).map(node).collect()
}

/// Reads the addresses of `Forwarded`, one an element; `None` stands for an element without one, or with an error in it.
fn forwarded(value: &str) -> Vec<Option<IpAddr>> {
    let elements = split_unquoted(value, ',');
    elements.into_iter().map(str::trim).filter(|element| !element.is_empty()).map(forwarded_for).collect()
}

/// Returns the address of the parameter `for` of an element, if it has one and is valid as a whole.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut address = None;
    for pair in split_unquoted(element, ';') {
        let (name, value) = pair.split_once('=')?;
        let value = unquoted(value.trim())?;
        if name.trim().eq_ignore_ascii_case("for") && address.replace(node(&value)).is_some() {
            return None;
        }
    }
    address?
}

/// Reads an IP address, with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn node(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    // A port may also be a name (RFC 7239, 6.2).
    match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let is_port = port.is_empty() || port.starts_with(":_");
            address.parse::<Ipv6Addr>().ok().filter(|_| is_port).map(IpAddr::V6)
        }
        None => text.split_once(":_")?.0.parse().ok().filter(IpAddr::is_ipv4),
    }
}

/// Splits a text at a separator outside quoted strings (RFC 9110, 5.6.4). An unclosed one reaches to the end.
fn split_unquoted(text: &str, separator: char) -> Vec<&str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(|character| {
        let is_separator = character == separator && !is_quoted;
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        is_separator
    })
    .collect()
}

/// Returns the content of a quoted string, or a text without a quote; `None` if a quote is anywhere else.
fn unquoted(value: &str) -> Option<Cow<'_, str>> {
    let Some(quoted) = value.strip_prefix('"') else { return (!value.contains('"')).then_some(value.into()) };
    let mut content = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '\\' => content.push(characters.next()?),
            '"' => return characters.next().is_none().then_some(content.into()),
            character => content.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn proxies() -> Vec<TrustedProxy> {
        let read = |text: &str| toml::from_str::<Proxies>(&format!("all = {text}")).expect("proxies").all;
        read("[\"10.0.0.0/8\", \"fd00::/8\"]")
    }

    #[derive(serde::Deserialize)]
    struct Proxies {
        all: Vec<TrustedProxy>,
    }

    fn address(text: &str) -> Peer {
        Peer::at(text.parse().expect("an address"))
    }

    /// The sender of a request with these header lines that came over a connection of `peer`.
    fn sender(peer: &str, lines: &[(&HeaderName, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        address(peer).sender(&headers, &proxies()).to_string()
    }

    #[test]
    fn the_last_untrusted_address_is_the_sender() {
        for (value, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("198.51.100.9, 192.0.2.1", "192.0.2.1"),
            ("192.0.2.1, 10.0.0.9, 10.0.0.8", "192.0.2.1"),
            ("192.0.2.1:4711,10.0.0.9:80", "192.0.2.1"),
            ("2001:db8::7, fd00::1", "2001:db8::7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("10.0.0.9, 10.0.0.8", "10.0.0.9"),
            ("192.0.2.1,, ", "192.0.2.1"),
            // An entry that can't be read was written by the proxy to its right.
            ("192.0.2.1, unknown, 10.0.0.9", "10.0.0.9"),
            ("192.0.2.1, _hidden", PROXY),
            ("192.0.2.1, 999.0.0.1", PROXY),
            ("192.0.2.1 198.51.100.9", PROXY),
            ("\u{e9}", PROXY),
            ("", PROXY),
        ] {
            assert_eq!(sender(PROXY, &[(&X_FORWARDED_FOR, value)]), expected, "{value}");
            assert_eq!(sender("203.0.113.5", &[(&X_FORWARDED_FOR, value)]), "203.0.113.5", "no proxy of ours");
        }
        assert_eq!(sender(PROXY, &[]), PROXY);
        assert_eq!(sender(PROXY, &[(&X_FORWARDED_FOR, "1.1.1.1"), (&X_FORWARDED_FOR, "192.0.2.1")]), "192.0.2.1");
    }

    #[test]
    fn forwarded_is_read_as_its_rfc_says() {
        for (value, expected) in [
            ("for=192.0.2.1", "192.0.2.1"),
            ("for=198.51.100.9, For=\"192.0.2.1:4711\";proto=https;by=10.0.0.1", "192.0.2.1"),
            ("proto=http ; FOR = \"[2001:db8::7]:_port\"", "2001:db8::7"),
            ("for=192.0.2.1:_port, for=10.0.0.9", "192.0.2.1"),
            ("for=\"192.0.2.\\1\"", "192.0.2.1"),
            ("for=192.0.2.1;ext=\"a, for=9.9.9.9\\\"\"", "192.0.2.1"),
            ("for=192.0.2.1, proto=https", PROXY),
            ("for=192.0.2.1, for=unknown", PROXY),
            ("for=192.0.2.1;for=198.51.100.9", PROXY),
            ("for=192.0.2.1;broken", PROXY),
            // The sender opened a quoted string, to hide the proxy's element in it.
            ("for=9.9.9.9;x=\", for=192.0.2.1", PROXY),
            ("for=9.9.9.9;x=\", for=\"[2001:db8::7]\"", PROXY),
            ("for=9.9.9.9;x=\", for=192.0.2.1;proto=\"http\"", PROXY),
        ] {
            assert_eq!(sender(PROXY, &[(&FORWARDED, value)]), expected, "{value}");
        }
    }

    #[test]
    fn two_fields_that_disagree_are_not_believed() {
        let both = |one, other| sender(PROXY, &[(&FORWARDED, one), (&X_FORWARDED_FOR, other)]);
        assert_eq!(both("for=192.0.2.1", "9.9.9.9, 192.0.2.1"), "192.0.2.1");
        assert_eq!(both("for=9.9.9.9", "192.0.2.1"), PROXY);
        assert_eq!(both("for=192.0.2.1", ""), PROXY);
    }

    #[test]
    fn a_proxy_on_a_unix_socket_is_trusted_by_name_only() {
        let headers = HeaderMap::from_iter([(X_FORWARDED_FOR, HeaderValue::from_static("192.0.2.1"))]);
        let local = Peer::LocalUser(33);
        assert_eq!(local.sender(&headers, &[TrustedProxy::UnixSocket]), address("192.0.2.1"));
        assert_eq!(local.sender(&headers, &proxies()), local);
        assert_eq!(Peer::Unknown.sender(&headers, &[TrustedProxy::UnixSocket]), Peer::Unknown);
        assert_eq!(address("192.0.2.9").sender(&headers, &[TrustedProxy::UnixSocket]), address("192.0.2.9"));
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_count_as_one() {
        for (address_text, network) in
            [("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"), ("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1")]
        {
            assert_eq!(address(address_text).network().to_string(), network);
        }
        assert_eq!(Peer::LocalUser(7).network().to_string(), "uid:7");
    }
}
