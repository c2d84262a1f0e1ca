//! Request heads and credentials. The input is a method and a target on one line, and a header field on each further line.

#![no_main]

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use libfuzzer_sys::fuzz_target;
use postern::caller::Credential;
use postern::config::Access;
use postern::request::route::{Endpoint, Route, route};
use postern_fuzz::callers::Identification;

static IDENTIFICATION: LazyLock<Identification> = LazyLock::new(Identification::new);

fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|byte| *byte == b'\n');
    let Some(head) = lines.next().and_then(|line| std::str::from_utf8(line).ok()) else { return };
    let (method, target) = head.split_once(' ').unwrap_or((head, "/"));
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default().trim_ascii();
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    check_caller(&headers);
    let Ok(request) = Request::builder().method(method).uri(target).body(()) else { return };
    let (mut parts, ()) = request.into_parts();
    parts.headers = headers;
    match route(&parts, &IDENTIFICATION.config.server, &IDENTIFICATION.config.pass_through) {
        Ok(Route::Endpoint(Endpoint::PassThrough(_))) => assert!(parts.uri.path().contains("/workflow")),
        Ok(Route::Endpoint(Endpoint::Execution(id) | Endpoint::Action(id, _) | Endpoint::Batches(id, _))) => {
            assert!(!id.as_str().contains(['/', '\\', '\r', '\n']) && id.as_str() != "..", "{id:?}");
        }
        Ok(Route::Webhook(tenant)) => assert!(!tenant.contains('/')),
        Ok(_) => {}
        Err(error) => assert!(error.status().is_client_error(), "{error:?}"),
    }
});

/// A caller is identified only by a secret in the request, and only for the linked accounts that it includes.
fn check_caller(headers: &HeaderMap) {
    let Some(caller) = IDENTIFICATION.identify(headers, true) else { return };
    let key = headers.get("x-api-key").map(HeaderValue::as_bytes);
    let account = headers.get("linked_account_id").or_else(|| headers.get("linked-account-id"));
    let account = account.map(HeaderValue::as_bytes).unwrap_or_default();
    match caller.credential() {
        Credential::Grant(_) => {
            assert_eq!(key, Some(postern_fuzz::CLIENT_KEY.as_bytes()));
            assert!(account.trim_ascii().starts_with(b"acme-"), "{account:?}");
            assert_eq!(caller.access(), Access::ReadWrite);
        }
        Credential::OrgKey(_) => assert_eq!(key, Some(postern_fuzz::OWN_ORG_KEY.as_bytes())),
        Credential::SessionToken(_) => assert!(key.is_none() && headers.contains_key("authorization")),
        Credential::Jwt(_) => panic!("no seed is a signed token"),
    }
}
