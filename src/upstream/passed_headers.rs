//! The headers of a pass-through response that reach the caller.

use http::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_LOCATION,
    CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED, LINK, LOCATION, RETRY_AFTER,
};
use http::{HeaderMap, HeaderValue, Method, Uri};

use crate::caller::Caller;
use crate::error::{ClientError, Reason};
use crate::log_events;

/// Headers that say something about the resource or the next request; errors have them too.
const OF_RESOURCE: [HeaderName; 7] = [ACCEPT_RANGES, ALLOW, CONTENT_RANGE, ETAG, LINK, LOCATION, RETRY_AFTER];
/// Headers that describe the body.
const OF_BODY: [HeaderName; 6] =
    [CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION, CONTENT_TYPE, LAST_MODIFIED];

/// Selects the headers of a response to a caller's request with this method.
pub(super) struct PassedHeaders<'a> {
    pub(super) caller: &'a Caller,
    /// The address of Refold, which callers do not need to know.
    pub(super) base_url: &'a Uri,
    pub(super) method: &'a Method,
}

impl PassedHeaders<'_> {
    /// Returns the headers that are passed on with the body.
    ///
    /// # Errors
    /// If one of them contains an org key that the caller does not have, in any form.
    pub(super) fn with_body(&self, headers: &HeaderMap) -> Result<HeaderMap, ClientError> {
        let mut passed = self.without_body(headers)?;
        for name in &OF_BODY {
            self.pass(name, headers, &mut passed)?;
        }
        if *self.method == Method::HEAD {
            self.pass(&CONTENT_LENGTH, headers, &mut passed)?;
        }
        Ok(passed)
    }

    /// Returns the headers that are passed on with an error, whose body is the gateway's.
    ///
    /// # Errors
    /// As for [`Self::with_body`].
    pub(super) fn without_body(&self, headers: &HeaderMap) -> Result<HeaderMap, ClientError> {
        let mut passed = HeaderMap::new();
        for name in &OF_RESOURCE {
            self.pass(name, headers, &mut passed)?;
        }
        Ok(passed)
    }

    fn pass(&self, name: &HeaderName, headers: &HeaderMap, passed: &mut HeaderMap) -> Result<(), ClientError> {
        for value in headers.get_all(name) {
            if self.caller.injects_org_key() && self.caller.tenant().org_keys().appear_in_header(value) {
                tracing::error!(message = log_events::UPSTREAM_RESPONSE_CONTAINS_ORG_KEY);
                let message = "Refold's response has a header that must not be shown";
                return Err(ClientError::new(Reason::UpstreamInvalidResponse, message));
            }
            let value = match *name {
                LOCATION | CONTENT_LOCATION => local_reference(self.base_url, value),
                LINK => local_links(self.base_url, value),
                _ => Some(value.clone()),
            };
            if let Some(value) = value {
                passed.append(name, value);
            }
        }
        Ok(())
    }
}

/// Makes a reference to Refold relative, so that the caller follows it through the gateway. Others stay as they are. `None`
/// if the value is not ASCII or has a tab, which no reference has: browsers remove it, so `/<tab>/host` leads to another host.
fn local_reference(base_url: &Uri, value: &HeaderValue) -> Option<HeaderValue> {
    let text = value.to_str().ok().filter(|text| !text.contains('\t'))?;
    match local_path(base_url, text) {
        Some(path) => HeaderValue::from_str(&path).ok(),
        None => Some(value.clone()),
    }
}

/// Makes the references of a `Link` header relative where they lead to Refold (RFC 8288, 3).
fn local_links(base_url: &Uri, value: &HeaderValue) -> Option<HeaderValue> {
    let mut local = String::new();
    let mut rest = value.to_str().ok()?;
    while let Some((before, (target, after))) =
        rest.split_once('<').and_then(|(before, after)| Some((before, after.split_once('>')?)))
    {
        if target.contains('\t') {
            return None;
        }
        let path = local_path(base_url, target);
        local.extend([before, "<", path.as_deref().unwrap_or(target), ">"]);
        rest = after;
    }
    local.push_str(rest);
    HeaderValue::from_str(&local).ok()
}

/// Returns the reference by which a caller finds the resource at the gateway, whose paths do not begin with that of `base_url`;
/// `None` if the reference leads elsewhere, or is relative to the present path.
fn local_path(base_url: &Uri, reference: &str) -> Option<String> {
    let reference = reference.trim();
    let is_path = reference.starts_with('/') && !reference[1..].starts_with(['/', '\\']);
    let path = with_slashes(if is_path { reference } else { path_at(base_url, reference)? });
    let below = path.strip_prefix(base_url.path().trim_end_matches('/'));
    let path = match below.filter(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#'])) {
        Some(below) => with_slashes(below),
        // An absolute reference stays as it is: that path is not the gateway's.
        None if is_path => path,
        None => return None,
    };
    // Not a reference to another host.
    Some(if path.starts_with("//") { format!("/.{path}") } else { path })
}

/// Makes a path absolute, with `/` for each `\`, as browsers read it. Query and fragment stay as they are.
fn with_slashes(path: &str) -> String {
    let (path, rest) = path.split_at(path.find(['?', '#']).unwrap_or(path.len()));
    let slash = if path.starts_with(['/', '\\']) { "" } else { "/" };
    [slash, &path.replace('\\', "/"), rest].concat()
}

/// Returns path, query and fragment of an absolute reference to the server at `base_url`; `None` if it leads elsewhere or is
/// relative.
fn path_at<'a>(base_url: &Uri, reference: &'a str) -> Option<&'a str> {
    let scheme_of_base = base_url.scheme_str().unwrap_or("https");
    let (scheme, rest) = match reference.strip_prefix("//") {
        Some(rest) => (scheme_of_base, rest),
        None => reference.split_once("://")?,
    };
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return None;
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
    let host_and_port = authority.rsplit('@').next().unwrap_or(authority);
    let (host, port) = match host_and_port.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => (host, port.parse().ok()),
        _ => (host_and_port, None),
    };
    let default_port = |scheme: &str| if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
    let same_host = host.eq_ignore_ascii_case(base_url.host()?);
    // Also `http:` for an https server: it is the same resource, under a name that callers need not know.
    let of_base = base_url.port_u16();
    let same_port =
        port == of_base || port.unwrap_or(default_port(scheme)) == of_base.unwrap_or(default_port(scheme_of_base));
    (same_host && same_port).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_references_to_refold_become_relative() {
        let base = Uri::from_static("https://api.refold.example");
        for (reference, expected) in [
            ("https://api.refold.example/a/1?b=c#d", "/a/1?b=c#d"),
            ("HTTPS://API.refold.example:443/a", "/a"),
            ("http://api.refold.example/a", "/a"),
            ("//api.refold.example/a", "/a"),
            ("https://u:p@api.refold.example/a", "/a"),
            ("https://api.refold.example", "/"),
            ("https://api.refold.example?a=b", "/?a=b"),
            ("https://api.refold.example//evil.example/", "/.//evil.example/"),
            ("/a/1", "/a/1"),
            ("../2", "../2"),
            (
                "https://files.example/a?u=https://api.refold.example/",
                "https://files.example/a?u=https://api.refold.example/",
            ),
            ("https://api.refold.example.evil.example/", "https://api.refold.example.evil.example/"),
            ("https://api.refold.example:8443/a", "https://api.refold.example:8443/a"),
            ("https://api.refold.example\\evil.example/", "/evil.example/"),
            ("https://api.refold.example/\\evil.example/?a=\\b", "/.//evil.example/?a=\\b"),
            ("https://api.refold.example\\\\evil.example/", "/.//evil.example/"),
            ("../2?u=https://api.refold.example/a", "../2?u=https://api.refold.example/a"),
        ] {
            let value = HeaderValue::from_static(reference);
            assert_eq!(local_reference(&base, &value).expect("ASCII"), expected, "{reference}");
            let link = HeaderValue::from_str(&format!("<{reference}>; rel=\"next\", </x>; rel=prev")).expect("ASCII");
            let expected = format!("<{expected}>; rel=\"next\", </x>; rel=prev");
            assert_eq!(local_links(&base, &link).expect("ASCII"), expected, "{reference}");
        }
    }

    #[test]
    fn only_paths_below_the_base_url_become_relative() {
        let base = Uri::from_static("https://api.refold.example/refold");
        for (reference, expected) in [
            ("https://api.refold.example/refold/a", "/a"),
            ("https://api.refold.example/refold", "/"),
            ("https://api.refold.example/refold?a=b", "/?a=b"),
            ("https://api.refold.example/refold\\evil.example/", "/evil.example/"),
            ("https://api.refold.example/refold/\\evil.example/", "/.//evil.example/"),
            ("https://api.refold.example\\refold\\a", "/a"),
            ("/refold\\\\evil.example/", "/.//evil.example/"),
            ("https://api.refold.example/other", "https://api.refold.example/other"),
            ("https://api.refold.example/refolded", "https://api.refold.example/refolded"),
            ("/other", "/other"),
        ] {
            let value = HeaderValue::from_static(reference);
            assert_eq!(local_reference(&base, &value).expect("ASCII"), expected, "{reference}");
        }
    }

    #[test]
    fn a_reference_with_a_tab_is_left_out() {
        for base in ["https://api.refold.example", "https://api.refold.example/refold"] {
            let base = Uri::from_static(base);
            for reference in ["/\t/evil.example/", "https://api.refold.example/\t/evil.example/", "\t//evil.example"] {
                assert_eq!(local_reference(&base, &HeaderValue::from_static(reference)), None, "{reference:?}");
                let link = HeaderValue::from_str(&format!("<{reference}>; rel=next")).expect("ASCII");
                assert_eq!(local_links(&base, &link), None, "{reference:?}");
            }
            let link = HeaderValue::from_static("</a>;\trel=next");
            assert_eq!(local_links(&base, &link).as_ref(), Some(&link));
        }
    }
}
