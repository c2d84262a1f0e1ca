//! Access to the admin listener: with the token, or from the same machine if no token is configured.
//!
//! A web page can make a browser on the same machine send requests to the listener. So a loopback listener accepts loopback
//! host names only (against DNS rebinding), and requests that a browser sends for a page of another origin or site are refused.

use aws_lc_rs::constant_time;
use http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use http::{HeaderMap, HeaderValue};

use crate::config::{ListenAddress, Secret};
use crate::digest::sha256;
use crate::error::{ClientError, Reason};
use crate::request::authority::HostAndPort;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Checks that a request to a loopback listener has a loopback name in `Host`.
///
/// # Errors
/// 400, if it has another name or none.
pub(super) fn check_host(address: &ListenAddress, headers: &HeaderMap) -> Result<(), ClientError> {
    let ListenAddress::Tcp(address) = address else { return Ok(()) };
    if !address.ip().is_loopback() {
        return Ok(());
    }
    let host = headers.get(HOST).and_then(|host| HostAndPort::parse(host.as_bytes()));
    if host.is_some_and(HostAndPort::is_loopback) {
        return Ok(());
    }
    let message = "this listener accepts loopback host names only: use 127.0.0.1 or localhost";
    Err(ClientError::new(Reason::MalformedRequest, message))
}

/// Checks that no page of another origin has made a browser send the request (Fetch Metadata, W3C; RFC 6454). Programs
/// send neither field. A link on another page may lead to the status page at `/`, which contains no data.
///
/// # Errors
/// 403, if `Sec-Fetch-Site` or `Origin` names another site or origin.
pub(super) fn check_origin(path: &str, headers: &HeaderMap) -> Result<(), ClientError> {
    let all = |name: &HeaderName, is_own: fn(&[u8]) -> bool| {
        headers.get_all(name).iter().all(|value| is_own(value.as_bytes()))
    };
    let is_link = path == "/"
        && all(&SEC_FETCH_MODE, |mode| mode == b"navigate")
        && all(&SEC_FETCH_DEST, |destination| destination == b"document")
        && headers.contains_key(SEC_FETCH_MODE)
        && headers.contains_key(SEC_FETCH_DEST);
    let is_own_site = is_link || all(&SEC_FETCH_SITE, |site| site == b"same-origin" || site == b"none");
    let host = headers.get(HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    // The scheme may differ, behind a proxy that ends TLS.
    let is_own_origin = |origin: &HeaderValue| {
        let authority =
            [&b"http://"[..], b"https://"].into_iter().find_map(|scheme| origin.as_bytes().strip_prefix(scheme));
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    };
    if is_own_site && headers.get_all(ORIGIN).iter().all(is_own_origin) {
        return Ok(());
    }
    let message = "pages of other origins may not use this listener";
    Err(ClientError::new(Reason::OriginNotAllowed, message))
}

/// The role of a request's sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AdminRole {
    /// May read and do everything.
    Operator,
    /// May read the resources without data: health, readiness and the files of the status page.
    Anonymous,
}

/// Determines the role of a request's sender from its `Authorization`, or from the listener's address if there is no token.
pub(super) fn role(address: &ListenAddress, token: Option<&Secret>, headers: &HeaderMap) -> AdminRole {
    let is_operator = match token {
        // The configuration demands a token for an address that is not local. Without one, such a listener admits no operator.
        None => address.is_local(),
        Some(token) => has_token(headers, token),
    };
    if is_operator { AdminRole::Operator } else { AdminRole::Anonymous }
}

fn has_token(headers: &HeaderMap, token: &Secret) -> bool {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Some((scheme, presented)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else { return false };
    let (presented, token) = (sha256(presented.trim_ascii().as_bytes()), sha256(token.expose().as_bytes()));
    scheme.eq_ignore_ascii_case("bearer") && constant_time::verify_slices_are_equal(&presented, &token).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SecretSource;

    fn headers(name: http::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_loopback_listener_accepts_loopback_host_names_only() {
        let accepts = |listener: &str, host: &'static str| {
            let address = ListenAddress::Tcp(listener.parse().expect("an address"));
            check_host(&address, &headers(HOST, host)).is_ok()
        };
        for host in ["127.0.0.1:9180", "localhost", "LOCALHOST:1", "[::1]:9180", "127.8.0.1"] {
            assert!(accepts("127.0.0.1:9180", host), "{host}");
        }
        for host in ["rebound.example", "localhost.example", "127.0.0.1.example:9180", "10.0.0.1", "", "[::2]", "a@b c"]
        {
            assert!(!accepts("127.0.0.1:9180", host), "{host}");
            assert!(!accepts("[::1]:9180", host), "{host}");
        }
        assert!(check_host(&ListenAddress::Tcp(([127, 0, 0, 1], 1).into()), &HeaderMap::new()).is_err());
        assert!(accepts("0.0.0.0:9180", "postern.example"), "other listeners are protected by the token");
        assert!(check_host(&ListenAddress::Unix("/run/x".into()), &headers(HOST, "any")).is_ok());
    }

    #[test]
    fn only_the_token_makes_an_operator() {
        let is_operator = |address: &ListenAddress, token: Option<&Secret>, headers: &HeaderMap| {
            role(address, token, headers) == AdminRole::Operator
        };
        let (loopback, other) =
            (ListenAddress::Tcp(([127, 0, 0, 1], 1).into()), ListenAddress::Tcp(([0, 0, 0, 0], 1).into()));
        let token = Secret::new("s3cret-token".to_owned(), SecretSource::Env("TOKEN".to_owned()));
        for address in [&loopback, &other] {
            for good in ["Bearer s3cret-token", "bearer s3cret-token"] {
                assert!(is_operator(address, Some(&token), &headers(AUTHORIZATION, good)), "{good}");
            }
            for bad in [
                "Bearer s3cret-toke",
                "Bearer s3cret-tokens",
                "Bearer ",
                "Bearer",
                "Basic s3cret-token",
                "s3cret-token",
            ] {
                assert!(!is_operator(address, Some(&token), &headers(AUTHORIZATION, bad)), "{bad}");
            }
            assert!(!is_operator(address, Some(&token), &HeaderMap::new()));
        }
        let mut twice = headers(AUTHORIZATION, "Bearer s3cret-token");
        twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer other"));
        assert!(!is_operator(&loopback, Some(&token), &twice));
        assert!(is_operator(&loopback, None, &HeaderMap::new()) && !is_operator(&other, None, &HeaderMap::new()));
    }
}
