//! The host that a request names: `Host` (RFC 9110, 7.2), or the authority of its target.

use std::net::IpAddr;

/// A host and, if there is one, a port: `uri-host [ ":" port ]` of RFC 3986, 3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostAndPort<'a> {
    host: &'a str,
}

impl<'a> HostAndPort<'a> {
    /// Reads a field value or an authority; `None` if it has another form, such as a path or a user name in it. The host may be
    /// empty, as it is in a request for a target without one.
    ///
    /// Part of the hit path: one pass over the bytes.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (host, port, is_host) = if value.first() == Some(&b'[') {
            let end = value.iter().position(|byte| *byte == b']')? + 1;
            let (host, port) = value.split_at(end);
            (host, port, is_ip_literal(&host[1..end - 1]))
        } else {
            let (host, port) = value.split_at(registered_name(value));
            (host, port, true)
        };
        let is_port = matches!(port, [] | [b':', ..]) && port.iter().skip(1).all(u8::is_ascii_digit);
        // Only ASCII is left.
        (is_port && is_host).then(|| std::str::from_utf8(host).ok())?.map(|host| Self { host })
    }

    /// The host, an IPv6 address in its brackets.
    #[must_use]
    pub fn host(self) -> &'a str {
        self.host
    }

    /// Returns whether the host is `localhost` or a loopback address, so that no name server has decided where it leads.
    #[must_use]
    pub fn is_loopback(self) -> bool {
        let address = self.host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(self.host);
        let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
        self.host.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(is_loopback)
    }
}

/// Returns the length of the `reg-name` at the beginning, which an IPv4 address is too: unreserved characters, sub-delimiters and
/// percent-encoded octets.
fn registered_name(value: &[u8]) -> usize {
    let mut end = 0;
    while let Some(byte) = value.get(end) {
        let is_encoded = || value.get(end + 1..end + 3).is_some_and(|octet| octet.iter().all(u8::is_ascii_hexdigit));
        end += match NAME_BYTES[usize::from(*byte)] {
            true => 1,
            false if *byte == b'%' && is_encoded() => 3,
            false => break,
        };
    }
    end
}

/// Marks the bytes that stand for themselves in a `reg-name`.
const NAME_BYTES: [bool; 256] = {
    let mut bytes = [false; 256];
    let mut byte = 0_u8;
    while byte < 0x80 {
        bytes[byte as usize] = matches!(byte,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~'
            // The sub-delimiters.
            | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=');
        byte += 1;
    }
    bytes
};

/// An IPv6 address. Addresses of a later version (`v1.…`) are of no use to anybody yet.
fn is_ip_literal(address: &[u8]) -> bool {
    std::str::from_utf8(address).is_ok_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_and_a_port_are_accepted() {
        for (value, host) in [
            ("gw", "gw"),
            ("gw.example:8080", "gw.example"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]:8080", "[::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("a_b.c~d", "a_b.c~d"),
            ("%41.example", "%41.example"),
            ("gw:", "gw"),
            ("", ""),
        ] {
            assert_eq!(HostAndPort::parse(value.as_bytes()).map(HostAndPort::host), Some(host), "{value}");
        }
        for value in [
            "gw/../x",
            "gw/",
            "u@gw",
            "u:p@gw",
            "gw:80:80",
            "gw:8x",
            "gw?x",
            "gw#x",
            "g w",
            "gw\\x",
            "[::1",
            "::1",
            "[::g]",
            "[::1]x",
            "[::1%25eth0]",
            "%4",
            "%zz",
            "g\u{e9}",
            "<gw>",
            "gw,gw:1/",
            "\"gw\"",
            "http://gw",
        ] {
            assert_eq!(HostAndPort::parse(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn loopback_names_are_localhost_and_loopback_addresses() {
        let is_loopback = |value: &str| HostAndPort::parse(value.as_bytes()).is_some_and(HostAndPort::is_loopback);
        for value in ["localhost", "LOCALHOST:1", "127.0.0.1:9180", "127.8.0.1", "[::1]:9180", "[::ffff:127.0.0.1]"] {
            assert!(is_loopback(value), "{value}");
        }
        for value in
            ["localhost.example", "127.0.0.1.example", "10.0.0.1", "", "[::2]", "127.1", "0.0.0.0", "localhost.", "a@b"]
        {
            assert!(!is_loopback(value), "{value}");
        }
    }
}
