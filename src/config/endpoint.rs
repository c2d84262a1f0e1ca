//! Addresses with everything that decides which connections arrive there, and the test for two that overlap.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::address::ListenAddress;

/// A listening address, and whether an IPv6 wildcard leaves out IPv4 connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The TCP address or Unix path.
    pub address: ListenAddress,
    /// `[::]` accepts no IPv4 connections (`IPV6_V6ONLY`); without effect at other addresses.
    pub ipv6_only: bool,
}

impl Endpoint {
    /// Returns true if a connection could arrive at either endpoint. Port 0, which the kernel replaces by a free port, overlaps
    /// nothing.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (&self.address, &other.address) {
            (ListenAddress::Tcp(one), ListenAddress::Tcp(two)) => {
                let is_same_port = one.port() == two.port() && one.port() != 0;
                is_same_port
                    && match (one.ip(), two.ip()) {
                        (IpAddr::V6(ip), IpAddr::V4(_)) => ip.is_unspecified() && !self.ipv6_only,
                        (IpAddr::V4(_), IpAddr::V6(ip)) => ip.is_unspecified() && !other.ipv6_only,
                        (a, b) => a.is_unspecified() || b.is_unspecified() || self.address == other.address,
                    }
            }
            (ListenAddress::Unix(one), ListenAddress::Unix(two)) => normalised(one) == normalised(two),
            _ => false,
        }
    }
}

/// Returns an absolute path without `.`, `..` and, as far as the folder exists, symbolic links.
fn normalised(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let (Some(folder), Some(name)) = (path.parent(), path.file_name())
        && let Ok(folder) = folder.canonicalize()
    {
        return folder.join(name);
    }
    let mut normalised = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(normalised.pop()),
            part => normalised.push(part),
        }
    }
    normalised
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        let (address, ipv6_only) = text.strip_suffix(" v6only").map_or((text, false), |address| (address, true));
        Endpoint { address: ListenAddress::parse(address).expect(text), ipv6_only }
    }

    #[test]
    fn addresses_overlap_if_a_connection_could_reach_both() {
        for (one, two) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::ffff:0.0.0.0]:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("[::]:80 v6only", "[::1]:80"),
            ("[::]:80", "127.0.0.1:80"),
            ("[::]:80", "0.0.0.0:80"),
            ("[::1]:80", "[0:0:0:0:0:0:0:1]:80"),
            ("unix:/run/a.sock", "unix:/run/./x/..//a.sock"),
            ("unix:/nowhere/a.sock", "unix:/nowhere/b/../a.sock"),
            ("unix:/proc/self/cwd/a.sock", "unix:a.sock"),
        ] {
            assert!(endpoint(one).overlaps(&endpoint(two)) && endpoint(two).overlaps(&endpoint(one)), "{one} {two}");
        }
    }

    #[test]
    fn addresses_with_no_connection_in_common_do_not_overlap() {
        for (one, two) in [
            ("127.0.0.1:80", "127.0.0.2:80"),
            ("127.0.0.1:80", "127.0.0.1:81"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("0.0.0.0:0", "[::]:0"),
            ("[::]:80 v6only", "127.0.0.1:80"),
            ("[::]:80 v6only", "0.0.0.0:80"),
            ("[::1]:80", "0.0.0.0:80"),
            ("[fe80::1%1]:80", "[fe80::1%2]:80"),
            ("unix:/run/a.sock", "unix:/run/b.sock"),
            ("unix:/run/a.sock", "127.0.0.1:80"),
        ] {
            assert!(!endpoint(one).overlaps(&endpoint(two)) && !endpoint(two).overlaps(&endpoint(one)), "{one} {two}");
        }
    }
}
