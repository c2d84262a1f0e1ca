//! Who may ask: whoever shows the token, or whoever is on this machine where there is none. A browser on this machine may be
//! led here by a page of somebody else's, so a loopback listener answers to loopback names alone (DNS rebinding), and nothing
//! is changed by a request that such a page could send.

use std::net::IpAddr;

use aws_lc_rs::constant_time;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HOST};
use http::uri::Authority;

use crate::config::{ListenAddress, Secret};
use crate::digest::sha256;
use crate::error::{ClientError, Reason};

/// Refuses a request that was meant for another host.
///
/// # Errors
/// 400, if a loopback listener is asked by another name.
pub(super) fn check_host(address: &ListenAddress, headers: &HeaderMap) -> Result<(), ClientError> {
    let ListenAddress::Tcp(address) = address else { return Ok(()) };
    if !address.ip().is_loopback() {
        return Ok(());
    }
    let host = headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    if host.is_some_and(|host| is_loopback(host.host())) {
        return Ok(());
    }
    let message = "this listener answers to loopback names alone: ask it as 127.0.0.1 or localhost";
    Err(ClientError::new(Reason::MalformedRequest, message))
}

fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Whether a request comes from somebody who may know and do everything here.
pub(super) fn is_operator(address: &ListenAddress, token: Option<&Secret>, headers: &HeaderMap) -> bool {
    let Some(token) = token else {
        // The configuration has made sure; were it otherwise, nobody is let in.
        return address.is_local();
    };
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    let (Some(shown), None) = (shown.next(), shown.next()) else { return false };
    let Some((scheme, shown)) = shown.to_str().ok().and_then(|shown| shown.split_once(' ')) else { return false };
    let (shown, token) = (sha256(shown.trim_ascii().as_bytes()), sha256(token.expose().as_bytes()));
    scheme.eq_ignore_ascii_case("bearer") && constant_time::verify_slices_are_equal(&shown, &token).is_ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::config::SecretSource;

    fn headers(name: http::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_loopback_listener_answers_to_loopback_names_alone() {
        let asked_as = |listens: &str, host: &'static str| {
            let address = ListenAddress::Tcp(listens.parse().expect("an address"));
            check_host(&address, &headers(HOST, host)).is_ok()
        };
        for host in ["127.0.0.1:9180", "localhost", "LOCALHOST:1", "[::1]:9180", "127.8.0.1"] {
            assert!(asked_as("127.0.0.1:9180", host), "{host}");
        }
        for host in ["rebound.example", "localhost.example", "127.0.0.1.example:9180", "10.0.0.1", "", "[::2]", "a@b c"]
        {
            assert!(!asked_as("127.0.0.1:9180", host), "{host}");
            assert!(!asked_as("[::1]:9180", host), "{host}");
        }
        assert!(check_host(&ListenAddress::Tcp(([127, 0, 0, 1], 1).into()), &HeaderMap::new()).is_err());
        assert!(asked_as("0.0.0.0:9180", "postern.example"), "there the token keeps the door");
        assert!(check_host(&ListenAddress::Unix("/run/x".into()), &headers(HOST, "whatever")).is_ok());
    }

    #[test]
    fn whoever_shows_the_token_may_ask_and_nobody_else() {
        let (near, far) =
            (ListenAddress::Tcp(([127, 0, 0, 1], 1).into()), ListenAddress::Tcp(([0, 0, 0, 0], 1).into()));
        let token = Secret::new("s3cret-token".to_owned(), SecretSource::Env("TOKEN".to_owned()));
        for address in [&near, &far] {
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
        assert!(!is_operator(&near, Some(&token), &twice));
        assert!(is_operator(&near, None, &HeaderMap::new()) && !is_operator(&far, None, &HeaderMap::new()));
    }
}
