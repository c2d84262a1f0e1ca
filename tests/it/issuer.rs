//! An issuer of tokens: its keys, and its JWKS document behind a URL.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http::StatusCode;
use http_body_util::Full;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::harness::http_upstream;

pub(crate) const ISSUER: &str = "https://login.example.com/";
pub(crate) const AUDIENCE: &str = "postern";
pub(crate) const RSA: &[u8] = include_bytes!("../data/issuer-rsa.pem");
pub(crate) const RSA_PUBLIC: &[u8] = include_bytes!("../data/issuer-rsa.pub.pem");
pub(crate) const STRANGER: &[u8] = include_bytes!("../data/stranger-rsa.pem");
const EC_256: &[u8] = include_bytes!("../data/issuer-ec256.pem");
const EC_384: &[u8] = include_bytes!("../data/issuer-ec384.pem");
const ED_25519: &[u8] = include_bytes!("../data/issuer-ed25519.pem");

/// A private key that signs with an algorithm.
pub(crate) fn private(algorithm: Algorithm) -> EncodingKey {
    match algorithm {
        Algorithm::ES256 => EncodingKey::from_ec_pem(EC_256),
        Algorithm::ES384 => EncodingKey::from_ec_pem(EC_384),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(ED_25519),
        _ => EncodingKey::from_rsa_pem(RSA),
    }
    .expect("a good key")
}

/// The public part of the key for an algorithm, under a name.
pub(crate) fn public(algorithm: Algorithm, id: &str) -> Value {
    jwk_of(&private(algorithm), algorithm, id)
}

pub(crate) fn jwk_of(key: &EncodingKey, algorithm: Algorithm, id: &str) -> Value {
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(key, algorithm).expect("a public part")).expect("JSON");
    jwk["kid"] = id.into();
    jwk["use"] = "sig".into();
    jwk
}

/// A header that names a key.
pub(crate) fn header(algorithm: Algorithm, id: &str) -> Header {
    Header { kid: Some(id.to_owned()), ..Header::new(algorithm) }
}

/// Claims that are good at the tests' moment.
pub(crate) fn claims(linked_account: &str) -> Value {
    // 2026-03-20T12:00:00Z
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "somebody", "exp": 1_774_008_000 + 3600, "linked_account_id": linked_account })
}

pub(crate) fn sign(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(header, claims, key).expect("it can be signed")
}

/// A JWKS document behind a URL.
#[derive(Clone)]
pub(crate) struct KeyServer {
    pub(crate) address: SocketAddr,
    /// The document, or the status that it fails with.
    answer: Arc<Mutex<Result<String, StatusCode>>>,
    asked: Arc<AtomicU64>,
}

impl KeyServer {
    pub(crate) async fn start(keys: &[Value]) -> Self {
        let answer = Arc::new(Mutex::new(Ok(json!({ "keys": keys }).to_string())));
        let asked = Arc::new(AtomicU64::new(0));
        let (given, count) = (Arc::clone(&answer), Arc::clone(&asked));
        let address = http_upstream(move |_| {
            let (given, count) = (Arc::clone(&given), Arc::clone(&count));
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                let mut response = http::Response::new(Full::default());
                match &*given.lock().expect("no panic") {
                    Ok(document) => *response.body_mut() = Full::new(document.clone().into()),
                    Err(status) => *response.status_mut() = *status,
                }
                response
            }
        })
        .await;
        Self { address, answer, asked }
    }

    pub(crate) fn publish(&self, keys: &[Value]) {
        *self.answer.lock().expect("no panic") = Ok(json!({ "keys": keys }).to_string());
    }

    pub(crate) fn fail(&self, status: StatusCode) {
        *self.answer.lock().expect("no panic") = Err(status);
    }

    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// The configuration of this issuer.
    pub(crate) fn lines(&self, more: &str) -> String {
        issuer(&format!("url = \"http://{}/jwks.json\", cooldown = \"10s\"", self.address), more)
    }
}

/// The configuration of an issuer with given keys.
pub(crate) fn issuer(keys: &str, more: &str) -> String {
    format!(
        "[[issuers]]\nissuer = \"{ISSUER}\"\naudience = [\"{AUDIENCE}\"]\ntenant = \"t\"\nwrite_scope = \"executions:write\"\nkeys = {{ {keys} }}\n{more}\n"
    )
}

/// A configuration with its tenant in mode `validate`, with two org keys and an issuer of tokens like [`token_of`].
pub(crate) fn validating(configuration: &str) -> String {
    let text = configuration
        .replace("mode = \"inject\"", "mode = \"validate\"")
        .replace("org_key = ", "org_key_next = { env = \"NEXT_ORG_KEY\" }\norg_key = ");
    text + &issuer("secret = { env = \"JWT_SECRET\" }", "")
}

/// `Authorization` of somebody who may see a linked account.
pub(crate) fn token_of(linked_account: &str) -> String {
    let secret = EncodingKey::from_secret(crate::harness::JWT_SECRET.as_bytes());
    format!("Bearer {}", sign(&Header::new(Algorithm::HS256), &claims(linked_account), &secret))
}
