//! JWTs. The first byte selects: a token as it is, which is never accepted, since it can't be signed; or a header and claims,
//! separated by a line break, that this target signs.

#![no_main]

use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use postern_fuzz::callers::Identification;
use serde_json::Value;

static IDENTIFICATION: LazyLock<Identification> = LazyLock::new(Identification::new);
/// [`postern_fuzz::NOW`] in seconds since 1970, less the leeway.
const EARLIEST_END: f64 = 1_774_008_000.0 - 30.0;

fuzz_target!(|data: &[u8]| {
    let Some((mode, rest)) = data.split_first() else { return };
    if mode % 2 == 1 {
        assert!(!is_accepted(rest), "a token without a signature is accepted");
        return;
    }
    let middle = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (header, claims) = (&rest[..middle], rest.get(middle + 1..).unwrap_or_default());
    let signed = format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(claims));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(postern_fuzz::hmac(postern_fuzz::SECRET, signed.as_bytes()));
    if is_accepted(format!("{signed}.{signature}").as_bytes()) {
        let header: Value = serde_json::from_slice(header).expect("an accepted token has a header");
        let claims: Value = serde_json::from_slice(claims).expect("an accepted token has claims");
        assert_eq!(header["alg"], "HS256");
        assert_eq!(claims["iss"], postern_fuzz::ISSUER);
        assert!(claims["exp"].as_f64().is_some_and(|end| end >= EARLIEST_END), "{claims}");
        assert!(claims["aud"] == "postern" || claims["aud"].is_array(), "{claims}");
        assert!(!is_accepted(signed.as_bytes()) && !is_accepted(format!("{signed}.").as_bytes()));
    }
});

fn is_accepted(token: &[u8]) -> bool {
    let Ok(value) = HeaderValue::from_bytes(&[b"Bearer ", token].concat()) else { return false };
    let mut headers = HeaderMap::new();
    headers.insert("authorization", value);
    IDENTIFICATION.identify(&headers, false).is_some()
}
