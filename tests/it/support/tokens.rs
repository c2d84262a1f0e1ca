//! An issuer of JWTs: its keys, its tokens, and a server with its JWKS document.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http::StatusCode;
use http_body_util::Full;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::{Answer, EXECUTIONS, Issuer, JWT_SECRET, World, http_upstream};

/// The issuer and the audience of all tokens.
pub(crate) const ISSUER: &str = "https://login.example.com/";
/// The start of the tests' clock, in seconds since 1970.
pub(crate) const NOW: u64 = 1_774_008_000;
pub(crate) const AUDIENCE: &str = "postern";
const RSA: &[u8] = include_bytes!("../../data/issuer-rsa.pem");
/// The issuer's public RSA key, and the private key of a stranger.
pub(crate) const RSA_PUBLIC: &[u8] = include_bytes!("../../data/issuer-rsa.pub.pem");
pub(crate) const STRANGER: &[u8] = include_bytes!("../../data/stranger-rsa.pem");
const EC_256: &[u8] = include_bytes!("../../data/issuer-ec256.pem");
const EC_384: &[u8] = include_bytes!("../../data/issuer-ec384.pem");
const ED_25519: &[u8] = include_bytes!("../../data/issuer-ed25519.pem");

/// The asymmetric algorithms that the gateway accepts.
pub(crate) const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// The id of the issuer's key for an algorithm.
pub(crate) fn key_id(algorithm: Algorithm) -> String {
    format!("{algorithm:?}-1")
}

/// A valid token of a linked account.
pub(crate) fn good(linked_account: &str) -> String {
    sign(&header(Algorithm::RS256, &key_id(Algorithm::RS256)), &claims(linked_account), &private(Algorithm::RS256))
}

/// Requests the executions with a token and further headers.
pub(crate) async fn ask(world: &World, token: &str, headers: &[(&str, &str)]) -> Answer {
    let authorization = format!("Bearer {token}");
    let headers = [&[("authorization", authorization.as_str())], headers].concat();
    world.gateway.get(EXECUTIONS, &headers).await
}

/// The issuer's private key for an algorithm.
pub(crate) fn private(algorithm: Algorithm) -> EncodingKey {
    match algorithm {
        Algorithm::ES256 => EncodingKey::from_ec_pem(EC_256),
        Algorithm::ES384 => EncodingKey::from_ec_pem(EC_384),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(ED_25519),
        _ => EncodingKey::from_rsa_pem(RSA),
    }
    .expect("a good key")
}

/// The public part of the issuer's key for an algorithm, as a JWK with an id.
pub(crate) fn public(algorithm: Algorithm, id: &str) -> Value {
    jwk_of(&private(algorithm), algorithm, id)
}

/// The public part of any key, as a JWK with an id.
pub(crate) fn jwk_of(key: &EncodingKey, algorithm: Algorithm, id: &str) -> Value {
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(key, algorithm).expect("a public part")).expect("JSON");
    jwk["kid"] = id.into();
    jwk["use"] = "sig".into();
    jwk
}

/// A token's header that names a key.
pub(crate) fn header(algorithm: Algorithm, id: &str) -> Header {
    Header { kid: Some(id.to_owned()), ..Header::new(algorithm) }
}

/// Claims that are valid at the start of the tests' clock.
pub(crate) fn claims(linked_account: &str) -> Value {
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "user-1", "exp": NOW + 3600, "linked_account_id": linked_account })
}

pub(crate) fn sign(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(header, claims, key).expect("the claims can be signed")
}

/// A server with the issuer's JWKS document.
#[derive(Clone)]
pub(crate) struct KeyServer {
    pub(crate) address: SocketAddr,
    /// The document, or the status of the failure; `None` if it never answers.
    answer: Arc<Mutex<Option<Result<String, StatusCode>>>>,
    requests: Arc<AtomicU64>,
}

impl KeyServer {
    pub(crate) async fn start(keys: &[Value]) -> Self {
        let answer = Arc::new(Mutex::new(Some(Ok(json!({ "keys": keys }).to_string()))));
        let requests = Arc::new(AtomicU64::new(0));
        let (given, count) = (Arc::clone(&answer), Arc::clone(&requests));
        let address = http_upstream(move |_| {
            let (given, count) = (Arc::clone(&given), Arc::clone(&count));
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                let mut response = http::Response::new(Full::default());
                let given = given.lock().expect("no panic").clone();
                match given {
                    Some(Ok(document)) => *response.body_mut() = Full::new(document.into()),
                    Some(Err(status)) => *response.status_mut() = status,
                    None => std::future::pending().await,
                }
                response
            }
        })
        .await;
        Self { address, answer, requests }
    }

    /// Replaces the document.
    pub(crate) fn publish(&self, keys: &[Value]) {
        *self.answer.lock().expect("no panic") = Some(Ok(json!({ "keys": keys }).to_string()));
    }

    /// Leaves all requests unanswered from now on.
    pub(crate) fn hang(&self) {
        *self.answer.lock().expect("no panic") = None;
    }

    /// Answers with an error status from now on.
    pub(crate) fn fail(&self, status: StatusCode) {
        *self.answer.lock().expect("no panic") = Some(Err(status));
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// The configuration of the issuer with this server.
    pub(crate) fn issuer(&self) -> Issuer {
        Issuer::with_server(self.address)
    }
}

/// The `Authorization` of a user of a linked account, signed with [`JWT_SECRET`].
pub(crate) fn token_of(linked_account: &str) -> String {
    let secret = EncodingKey::from_secret(JWT_SECRET.as_bytes());
    format!("Bearer {}", sign(&Header::new(Algorithm::HS256), &claims(linked_account), &secret))
}

/// The `Authorization` of a user of a linked account, signed with the issuer's ES256 key under an id.
pub(crate) fn es256_token_of(linked_account: &str, id: &str) -> String {
    let key = private(Algorithm::ES256);
    format!("Bearer {}", sign(&header(Algorithm::ES256, id), &claims(linked_account), &key))
}
