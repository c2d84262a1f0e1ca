//! `postern whoami`: the permissions of a credential, or what is wrong with it.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use postern::digest::{Hex, sha256};
use serde_json::{Value, json};

use crate::support::tokens::{AUDIENCE, ISSUER, RSA_PUBLIC, header, private, sign};
use crate::support::{ClientKey, Configuration, Folder, Issuer, JWT_SECRET, Listener, ORG_KEY, Tenant, postern};

/// The output of `postern whoami` for a credential; refused or not, its exit status says so too.
fn ask(config: &Configuration, credential: &str, arguments: &[&str]) -> String {
    let folder = Folder::new();
    let mut whoami = postern();
    whoami.args(["whoami", "--config"]).arg(folder.write("whoami.toml", config.to_toml())).args(arguments);
    let output = whoami.run_with_input(credential);
    let shown = String::from_utf8(output.stdout).expect("text");
    let errors = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(i32::from(shown.contains("\nrefused"))), "{shown}");
    // Of a token, the signature is the secret part.
    let secret = credential.trim().rsplit('.').next().expect("a last part");
    for text in [&shown, &errors] {
        assert!(secret.len() < 3 || !text.contains(secret), "the credential is echoed: {text}");
    }
    shown
}

fn has_lines(shown: &str, lines: &[&str]) {
    for line in lines {
        assert!(shown.lines().any(|shown| shown.starts_with(line)), "{line}: {shown}");
    }
}

fn with_keys() -> Configuration {
    let keys = [
        ClientKey::new("dashboards", "pst_dash").accounts(&["acme-*", "globex"]),
        ClientKey::new("old", "pst_old").expires("2020-01-01"),
    ];
    Configuration::bare().tenants([Tenant::new("acme").client_keys(keys)])
}

#[test]
fn a_good_key_shows_its_permissions() {
    let good = ask(&with_keys(), "pst_dash\n", &["--linked-account", "acme-1"]);
    has_lines(
        &good,
        &[
            "name            dashboards",
            "tenant          acme",
            "linked accounts acme-*, globex",
            "this request    acme-1",
            "access          read",
        ],
    );
}

#[test]
fn a_refused_key_is_compared_with_the_configuration() {
    let config = with_keys();
    let hash = Hex(&sha256(b"pst_dash")).to_string();
    for (credential, account, lines) in [
        (
            "pst_dash",
            "globx",
            [
                "why             this key is not for that linked account",
                "this key is     `dashboards` of tenant `acme`",
                "asked for       \"globx\"",
                "granted         \"acme-*\", \"globex\"",
                "did you mean    \"globex\"?",
            ]
            .as_slice(),
        ),
        (
            "pst_old",
            "a",
            &[
                "why             this key has expired",
                "this key is     `old` of",
                "expired at      2020-01-01T00:00:00Z, ",
            ],
        ),
        ("pst_none", "a", &["this key has    the SHA-256 ", "accepted        none of the 2 client keys has it"]),
        ("\"pst_dash\"", "a", &["did you mean    the key `dashboards`, without what is around it here?"]),
        (&hash, "a", &["did you mean    the key `dashboards` itself? This is its SHA-256"]),
        (ORG_KEY, "a", &["did you mean    a client key? This is the org key of tenant `acme`, whose mode is `inject`"]),
        ("", "a", &["why             the request has no credential"]),
    ] {
        has_lines(&ask(&config, credential, &["--linked-account", account]), lines);
    }
    has_lines(&ask(&config, "pst_dash", &[]), &["why             linked_account_id or org_id is required"]);
    has_lines(
        &ask(&config, "a.b.c", &["--bearer"]),
        &[
            "why             the token is of no configured issuer",
            "this token is   no JWT",
            "session tokens  are accepted at no listener",
        ],
    );
}

/// A token with some claims changed, signed with the issuer's secret.
fn token(changes: &Value) -> String {
    let end = jiff::Timestamp::now().as_second() + 3600;
    let mut claims =
        json!({ "iss": ISSUER, "aud": AUDIENCE, "exp": end, "linked_account_id": "acme-1", "tenant": "t" });
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    sign(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(JWT_SECRET.as_bytes()))
}

fn with_issuer() -> Configuration {
    let tenant = Tenant::new("t").client_key(ClientKey::new("k", "pst_k"));
    Configuration::bare()
        .listeners([Listener::new(), Listener::at("127.0.0.1:1").session_tokens("t")])
        .tenants([tenant])
        .issuer(Issuer::with_secret())
}

#[test]
fn a_refused_token_names_the_claim_that_failed() {
    let config = with_issuer();
    has_lines(&ask(&config, &token(&json!({})), &["--bearer"]), &["linked accounts acme-1"]);
    for (changes, lines) in [
        (
            json!({ "iss": ISSUER.trim_end_matches('/') }),
            [
                "claim           iss",
                "token has       \"https://login.example.com\"",
                "accepted        \"https://login.example.com/\"",
                "did you mean    \"https://login.example.com/\"?",
                "session tokens  are accepted at 127.0.0.1:1",
            ]
            .as_slice(),
        ),
        (
            json!({ "aud": ["postren"] }),
            &[
                "claim           aud",
                "token has       [\"postren\"]",
                "accepted        \"postern\"",
                "did you mean    \"postern\"?",
            ],
        ),
        (json!({ "aud": null }), &["claim           aud", "token has       nothing"]),
        (
            json!({ "exp": 1_600_000_000 }),
            &[
                "why             the claim `exp` lies in the past",
                "claim           exp",
                "token has       2020-09-13T12:26:40Z, ",
            ],
        ),
        (json!({ "nbf": 4_000_000_000_u64 }), &["claim           nbf", "token has       2096-10-02T07:06:40Z, in "]),
        (
            json!({ "exp": "soon" }),
            &["token has       exp \"soon\", nbf nothing", "accepted        seconds since 1970; exp is required"],
        ),
        (
            json!({ "linked_account_id": ["acme-2", "acme-3"] }),
            &[
                "claim           linked_account_id",
                "token has       [\"acme-2\",\"acme-3\"]",
                "asked for       \"acme-1\"",
            ],
        ),
    ] {
        has_lines(&ask(&config, &token(&changes), &["--bearer", "--linked-account", "acme-1"]), lines);
    }
    let key = ask(&config, &token(&json!({})), &["--linked-account", "acme-1"]);
    has_lines(&key, &["this key is     a token (JWT): with --bearer it is sent as one"]);
}

#[test]
fn a_refused_token_names_the_algorithm_the_key_or_the_tenant() {
    let folder = Folder::new();
    let public = Issuer::with_file(&folder.write("issuer.pem", RSA_PUBLIC));
    let config = with_issuer().issuer(public);
    has_lines(
        &ask(&config, &token(&json!({})), &["--bearer"]),
        &["claim           alg", "token has       \"HS256\"", "accepted        \"RS256\", "],
    );
    let forged = sign(&header(Algorithm::ES256, "1"), &json!({ "iss": ISSUER }), &private(Algorithm::ES256));
    has_lines(&ask(&config, &forged, &["--bearer"]), &["why             no key of the issuer verifies the signature"]);
    let by_claim = with_issuer().issuer(Issuer::with_secret().without("tenant").set("tenant_claim", "tenant"));
    has_lines(
        &ask(&by_claim, &token(&json!({ "tenant": "tt" })), &["--bearer"]),
        &["claim           tenant", "token has       \"tt\"", "accepted        \"t\"", "did you mean    \"t\"?"],
    );
}
