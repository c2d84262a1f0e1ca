//! The details of a refused credential, for `postern whoami`: the part that failed, what the credential has, what the configuration
//! accepts, and what was probably meant. The decision itself is the gateway's.

use std::fmt::Display;

use jiff::Timestamp;
use jsonwebtoken::dangerous::insecure_decode_claims;
use serde_json::Value;

use super::output::time_span;
use crate::config::{AccountPattern, ClientKey, Config, Issuer, TenantConfig, TenantMode, TenantOf};
use crate::digest::{Hex, sha256};
use crate::error::{ClientError, Reason};
use crate::suggest::suggest;

/// Longest text of a token that is shown, in characters.
const LONGEST: usize = 200;

/// A refused request, as far as its credential matters.
#[derive(Clone, Copy)]
pub(super) struct RefusedRequest<'a> {
    pub(super) config: &'a Config,
    pub(super) credential: &'a str,
    /// The credential is sent in `Authorization`.
    pub(super) is_bearer: bool,
    pub(super) linked_account: Option<&'a str>,
    pub(super) now: Timestamp,
}

/// Lines of output, each with its name.
pub(super) type Details = Vec<(&'static str, String)>;

/// Compares the credential with the configuration, at the place where the gateway has refused it.
pub(super) fn details(request: RefusedRequest<'_>, error: &ClientError) -> Details {
    if request.credential.is_empty() {
        return Details::new();
    }
    if !request.is_bearer {
        return details_of_key(request, error);
    }
    let Ok(claims) = insecure_decode_claims::<Value>(request.credential) else {
        let kind = "no JWT, which has three parts in base64url with dots between them: a session token?".to_owned();
        return [vec![("this token is", kind)], listeners_with_session_tokens(request.config)].concat();
    };
    details_of_token(request, &claims, error)
}

fn details_of_key(request: RefusedRequest<'_>, error: &ClientError) -> Details {
    let RefusedRequest { config, credential, .. } = request;
    if jsonwebtoken::decode_header(credential).is_ok() {
        return vec![("this key is", "a token (JWT): with --bearer it is sent as one".to_owned())];
    }
    let Some((tenant, key)) = key_of(config, credential) else {
        return details_of_unknown_key(config, credential);
    };
    let mut lines = vec![("this key is", format!("`{}` of tenant `{}`", key.name, tenant.id))];
    match key.expires.filter(|end| request.now >= *end) {
        Some(end) => lines.push(("expired at", since(end, request.now))),
        None if error.is(Reason::LinkedAccountNotAllowed) => {
            lines.extend(details_of_account(request, &key.linked_accounts));
        }
        None => {}
    }
    lines
}

/// The client key with this text, and its tenant.
fn key_of<'a>(config: &'a Config, credential: &str) -> Option<(&'a TenantConfig, &'a ClientKey)> {
    let digest = sha256(credential.as_bytes());
    let of_tenant =
        |tenant: &'a TenantConfig| Some((tenant, tenant.client_keys.iter().find(|key| key.sha256 == digest)?));
    config.tenants.iter().find_map(|tenant| of_tenant(tenant))
}

fn details_of_unknown_key(config: &Config, credential: &str) -> Details {
    let keys: usize = config.tenants.iter().map(|tenant| tenant.client_keys.len()).sum();
    let digest = Hex(&sha256(credential.as_bytes())).to_string();
    let mut lines = vec![
        ("this key has", format!("the SHA-256 {digest}")),
        ("accepted", format!("none of the {keys} client keys has it")),
    ];
    let trimmed =
        credential.trim_start_matches("x-api-key:").trim_start_matches("Bearer ").trim_matches(['"', '\'', ' ']);
    let all_keys = || config.tenants.iter().flat_map(|tenant| &tenant.client_keys);
    if let Some((_, key)) = key_of(config, trimmed) {
        lines.push(("did you mean", format!("the key `{}`, without what is around it here?", key.name)));
    } else if let Some(key) = all_keys().find(|key| Hex(&key.sha256).to_string().eq_ignore_ascii_case(credential)) {
        lines.push(("did you mean", format!("the key `{}` itself? This is its SHA-256", key.name)));
    } else if let Some(tenant) = config.tenants.iter().find(|tenant| is_org_key(tenant, credential)) {
        let advice = format!("a client key? This is the org key of tenant `{}`, whose mode is `inject`", tenant.id);
        lines.push(("did you mean", advice));
    }
    lines
}

fn is_org_key(tenant: &TenantConfig, credential: &str) -> bool {
    let mut keys = [&tenant.org_key].into_iter().chain(&tenant.org_key_next);
    tenant.mode == TenantMode::Inject && keys.any(|key| key.expose() == credential)
}

/// The linked account of the request beside those that the credential is for.
fn details_of_account<T: Display>(request: RefusedRequest<'_>, granted: &[T]) -> Details {
    let asked = request.linked_account.map_or("none".to_owned(), quoted);
    let granted: Vec<String> = granted.iter().map(ToString::to_string).collect();
    let mut lines = vec![("asked for", asked), ("granted", list(granted.iter().map(String::as_str)))];
    lines.extend(request.linked_account.and_then(|account| did_you_mean(account, granted.iter().map(String::as_str))));
    lines
}

fn details_of_token(request: RefusedRequest<'_>, claims: &Value, error: &ClientError) -> Details {
    let RefusedRequest { config, credential, now, .. } = request;
    let Some(issuer) = config.issuers.iter().find(|issuer| claims["iss"] == *issuer.issuer) else {
        let known = || config.issuers.iter().map(|issuer| &*issuer.issuer);
        let mut lines = compared("iss", &claims["iss"], known());
        lines.extend(claims["iss"].as_str().and_then(|iss| did_you_mean(iss, known())));
        return [lines, listeners_with_session_tokens(config)].concat();
    };
    let header = jsonwebtoken::decode_header(credential).ok();
    let leeway = || format!("leeway {}", time_span(issuer.leeway.as_secs()));
    let moment = |name: &str| claims[name].as_f64().and_then(seconds);
    match error.credential_problem() {
        Some("token_algorithm") => {
            let accepted: Vec<String> = issuer.algorithms.iter().map(|algorithm| format!("{algorithm:?}")).collect();
            let used = header.map_or(Value::Null, |header| format!("{:?}", header.alg).into());
            compared("alg", &used, accepted.iter().map(String::as_str))
        }
        Some("token_unknown_key") => {
            let id = header.and_then(|header| header.kid).map_or(Value::Null, Value::from);
            vec![("claim", "kid, in the header".to_owned()), ("token has", shown(&id))]
        }
        Some("token_audience") => {
            let mut lines = compared("aud", &claims["aud"], issuer.audience.iter().map(String::as_str));
            let named = claims["aud"].as_str().or_else(|| claims["aud"].get(0)?.as_str());
            lines.extend(named.and_then(|named| did_you_mean(named, issuer.audience.iter().map(String::as_str))));
            lines
        }
        Some("token_expired") => {
            let end = moment("exp").map_or(shown(&claims["exp"]), |end| since(end, now));
            vec![("claim", "exp".to_owned()), ("token has", end), ("accepted", format!("a later time; {}", leeway()))]
        }
        Some("token_not_yet_valid") => {
            let start = moment("nbf").map_or(shown(&claims["nbf"]), |start| since(start, now));
            vec![
                ("claim", "nbf".to_owned()),
                ("token has", start),
                ("accepted", format!("an earlier time; {}", leeway())),
            ]
        }
        Some("token_dates") => vec![
            ("token has", format!("exp {}, nbf {}", shown(&claims["exp"]), shown(&claims["nbf"]))),
            ("accepted", "seconds since 1970; exp is required".to_owned()),
        ],
        Some("token_tenant") => details_of_tenant(config, issuer, claims),
        None if error.is(Reason::LinkedAccountNotAllowed) => {
            let claim = &issuer.linked_account_claim;
            let value = claim.find(claims).unwrap_or(&Value::Null);
            let mut lines = vec![("claim", claim.0.to_string()), ("token has", shown(value))];
            let granted: Vec<&str> = value.as_str().into_iter().chain(texts(value)).collect();
            lines.extend(details_of_account(request, &granted).into_iter().filter(|(name, _)| *name != "granted"));
            lines
        }
        _ => Details::new(),
    }
}

fn details_of_tenant(config: &Config, issuer: &Issuer, claims: &Value) -> Details {
    let TenantOf::Claim(claim) = issuer.tenant() else { return Details::new() };
    let value = claim.find(claims).unwrap_or(&Value::Null);
    let known = || config.tenants.iter().map(|tenant| &*tenant.id);
    let mut lines = compared(&claim.0, value, known());
    lines.extend(value.as_str().and_then(|named| did_you_mean(named, known())));
    lines
}

/// A claim of the token beside the values that the configuration accepts.
fn compared<'a>(claim: &str, value: &Value, accepted: impl Iterator<Item = &'a str>) -> Details {
    vec![("claim", claim.to_owned()), ("token has", shown(value)), ("accepted", list(accepted))]
}

fn listeners_with_session_tokens(config: &Config) -> Details {
    let taking = config.listeners.iter().filter(|listener| listener.session_tokens.is_some());
    let addresses: Vec<String> = taking.map(|listener| listener.address.to_string()).collect();
    let text = if addresses.is_empty() { "at no listener".to_owned() } else { format!("at {}", addresses.join(", ")) };
    vec![("session tokens", format!("are accepted {text}"))]
}

fn did_you_mean<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<(&'static str, String)> {
    suggest(given, known.filter(|known| *known != given))
        .map(|nearest| ("did you mean", format!("{}?", quoted(nearest))))
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn list<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let texts: Vec<String> = texts.map(quoted).collect();
    if texts.is_empty() { "nothing".to_owned() } else { texts.join(", ") }
}

fn quoted(text: &str) -> String {
    shown(&text.into())
}

/// A value of a token as JSON, in which a terminal finds no control characters, cut to a bounded length.
fn shown(value: &Value) -> String {
    if value.is_null() {
        return "nothing".to_owned();
    }
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A NumericDate (RFC 7519, 2) as a time.
fn seconds(number: f64) -> Option<Timestamp> {
    #[expect(clippy::cast_possible_truncation, reason = "a number that does not fit is none of a time either")]
    Timestamp::from_second(number as i64).ok()
}

/// A time, and how long ago it is or how long it takes.
fn since(time: Timestamp, now: Timestamp) -> String {
    let distance = time_span(time.as_second().abs_diff(now.as_second()));
    if time <= now { format!("{time}, {distance} ago") } else { format!("{time}, in {distance}") }
}

/// Patterns as the configuration file has them, separated by commas.
pub(super) fn patterns(patterns: &[AccountPattern]) -> String {
    patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
