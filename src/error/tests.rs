//! Which error a client receives, and what of an upstream error is kept.

use super::*;

#[test]
fn the_two_documented_errors_come_out_to_the_letter() {
    assert_eq!(
        ClientError::no_linked_account().body("id"),
        r#"{"status_code":400,"http_error_type":"INVALID_LINKED_ACCOUNT_ID","error_code":"BAD_REQUEST","message":"linked_account_id or org_id is required","request_id":"id"}"#
    );
    assert_eq!(
        ClientError::invalid_credentials().body("id"),
        r#"{"status_code":401,"http_error_type":"UNAUTHORIZED","error_code":"SERVER_ERROR","message":"Invalid Credentials","request_id":"id"}"#
    );
}

#[test]
fn an_unregistered_status_keeps_its_number_and_gets_its_class_name() {
    let status = StatusCode::from_u16(599).expect("a status of three digits");
    let error = ClientError::from_upstream(status, UpstreamErrorFields::default());
    let body = String::from_utf8(error.body("id").to_vec()).expect("JSON is UTF-8");
    assert!(body.contains(r#""status_code":599,"http_error_type":"INTERNAL_SERVER_ERROR""#), "{body}");
}

#[test]
fn every_upstream_error_has_one_metrics_label() {
    for (status, code) in [(404, None), (499, None), (599, None), (429, Some("RATE_LIMIT_EXCEEDED")), (500, Some(""))] {
        let fields = UpstreamErrorFields { error_code: code.map(str::to_owned), ..UpstreamErrorFields::default() };
        let error = ClientError::from_upstream(StatusCode::from_u16(status).expect("three digits"), fields);
        assert_eq!(error.label(), "UPSTREAM", "{status}");
        assert!(!error.is(Reason::RateLimitExceeded));
    }
    assert_eq!(ClientError::invalid_credentials().label(), INVALID_CREDENTIALS);
    assert_eq!(ClientError::no_linked_account().label(), "BAD_REQUEST");
}

#[test]
fn an_upstream_code_is_short_upper_snake_case_or_the_class() {
    let long = "A".repeat(MAX_UPSTREAM_CODE + 1);
    for (code, shown) in [
        ("NO_SUCH_2", "NO_SUCH_2"),
        (&long[1..], &long[1..]),
        (&long, "NOT_FOUND"),
        ("no_such", "NOT_FOUND"),
        ("NO SUCH", "NOT_FOUND"),
        ("NO_SÜCH", "NOT_FOUND"),
        ("\u{1b}[31m", "NOT_FOUND"),
        ("", "NOT_FOUND"),
    ] {
        let fields = UpstreamErrorFields {
            error_code: Some(code.to_owned()),
            http_error_type: Some(code.to_owned()),
            ..UpstreamErrorFields::default()
        };
        let error = ClientError::from_upstream(StatusCode::NOT_FOUND, fields);
        assert_eq!((error.operator_code(), &*error.0.http_error_type), (shown, shown), "{code}");
    }
}

#[test]
fn upstream_texts_are_bounded() {
    for (text, message, keeps_id) in [
        ("x".repeat(MAX_UPSTREAM_REQUEST_ID), "x".repeat(MAX_UPSTREAM_REQUEST_ID), true),
        ("x".repeat(MAX_UPSTREAM_MESSAGE), "x".repeat(MAX_UPSTREAM_MESSAGE), false),
        ("x".repeat(10_000_000), "x".repeat(MAX_UPSTREAM_MESSAGE) + "…", false),
        ("€".repeat(10_000), "€".repeat(MAX_UPSTREAM_MESSAGE / 3) + "…", false),
    ] {
        let fields = UpstreamErrorFields {
            message: Some(text.clone()),
            request_id: Some(text),
            ..UpstreamErrorFields::default()
        };
        let error = ClientError::from_upstream(StatusCode::BAD_REQUEST, fields);
        assert_eq!((error.message(), error.0.upstream_request_id.is_some()), (&*message, keeps_id));
        assert!(error.body("id").len() < 8192);
    }
}

#[test]
fn the_cause_is_kept_and_never_in_the_body() {
    let error = ClientError::new(Reason::Overloaded, "try again").caused_by(std::io::Error::other("secret detail"));
    assert_eq!(error.clone().cause().map(ToString::to_string).as_deref(), Some("secret detail"));
    assert!(!String::from_utf8_lossy(&error.body("id")).contains("secret"));
}

#[test]
fn retry_after_is_rounded_up_to_whole_seconds() {
    let error = |wait| ClientError::new(Reason::Overloaded, "x").retry_after(wait).retry_after_seconds();
    assert_eq!(error(Duration::from_millis(1)), Some(1));
    assert_eq!(error(Duration::from_secs(2)), Some(2));
    assert_eq!(error(Duration::from_millis(2001)), Some(3));
}
