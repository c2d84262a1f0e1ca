//! URLs of servers.

use std::fmt;

use http::Uri;
use http::uri::{Authority, PathAndQuery};
use rustls::pki_types::ServerName;

/// A URL, split into the parts that a client needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerUrl {
    /// Scheme and authority, with the path `/`.
    pub(super) origin: Uri,
    /// Path and query.
    pub(super) target: PathAndQuery,
}

/// Parses the URL of a server that a client can connect to.
///
/// # Errors
/// If it is no absolute http or https URL, or its host or port can't be connected to.
pub(crate) fn parse_server_url(text: &str) -> Result<Uri, &'static str> {
    let uri: Uri = text.parse().map_err(|_| "this is no URL")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("the URL has to begin with http:// or https://");
    }
    if text.contains('#') {
        return Err("the URL must not have a fragment");
    }
    let authority = uri.authority().ok_or("the URL has no host")?;
    let host = authority.host();
    if ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']')).is_err() {
        return Err("the URL's host is neither a name nor an IP address");
    }
    if !has_valid_port(authority) {
        return Err("the URL's port has to be a number from 1 to 65535");
    }
    Ok(uri)
}

/// Returns true if there is no port, or one that TCP has. `Authority` takes digits of any number, and none.
fn has_valid_port(authority: &Authority) -> bool {
    let host_and_port = authority.as_str().rsplit('@').next().unwrap_or_default();
    match host_and_port.strip_prefix(authority.host()) {
        Some("") => true,
        Some(port) => authority.port_u16().is_some_and(|number| number > 0 && port.len() > 1),
        None => false,
    }
}

impl ServerUrl {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let mut origin = parse_server_url(text)?.into_parts();
        let target = origin.path_and_query.replace(PathAndQuery::from_static("/"));
        let origin = Uri::from_parts(origin).map_err(|_| "this is no URL")?;
        Ok(Self { origin, target: target.unwrap_or(PathAndQuery::from_static("/")) })
    }

    /// Returns true if the URL holds a user name or password.
    pub(super) fn has_credentials(&self) -> bool {
        self.origin.authority().is_some_and(|authority| authority.as_str().contains('@'))
    }
}

/// Writes the URL without the parts that may be secret: user, password and query.
impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.origin.authority().map_or("", |authority| authority.as_str());
        let host = authority.rsplit('@').next().unwrap_or_default();
        write!(
            f,
            "{}://{host}{}",
            self.origin.scheme_str().unwrap_or_default(),
            self.target.path().trim_end_matches('/')
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_no_client_can_connect_to_is_refused() {
        for good in
            ["http://a", "https://a.example:1/", "https://a:65535", "http://127.0.0.1:80", "https://[::1]:8443/x"]
        {
            assert!(parse_server_url(good).is_ok(), "{good}");
        }
        for bad_port in ["https://a:99999", "http://a:65536/x", "https://a:0", "http://a:", "https://[::1]:70000"] {
            let refused = parse_server_url(bad_port);
            assert_eq!(refused, Err("the URL's port has to be a number from 1 to 65535"), "{bad_port}");
        }
        for bad in [
            "a.example",
            "ftp://a",
            "https://",
            "https://:443",
            "https://a b",
            "https://a..b",
            "https://a/#x",
            "http://[::g]/",
        ] {
            assert!(parse_server_url(bad).is_err(), "{bad}");
        }
    }
}
