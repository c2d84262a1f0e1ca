//! Accepted and rejected queries, as a client would send them.

use super::*;

fn policy(unknown: UnknownParameters) -> QueryPolicy {
    QueryPolicy { max_limit: 100, unknown, ignored: vec!["_".to_owned()] }
}

fn list(raw: &str) -> Result<ListQuery, String> {
    ListQuery::parse(Some(raw), &policy(UnknownParameters::Reject)).map_err(|error| error.to_string())
}

fn canonical(raw: &str) -> String {
    list(raw).map_or_else(|error| error, |query| query.to_string())
}

fn upstream(raw: &str, dialect: Dialect) -> String {
    let mut out = String::new();
    list(raw).expect("a valid query").write_upstream(dialect, &mut out);
    out
}

/// Canonical forms, each with other spellings of the same query.
const SPELLINGS: &[(&str, &[&str])] = &[
    (
        "page=1&limit=10",
        &[
            "",
            "page=1",
            "limit=010",
            "page=0001&limit=10",
            "status=All",
            "status=all&execution_source=ALL",
            "&&",
            "page",
            "status=&page=+1+",
            "execution_type=All",
            "_=1700000000",
            "page=1&page=01",
            "%70age=1",
            "slug=,",
            "slug=%20",
        ],
    ),
    (
        "page=2&limit=25&status=TIMED_OUT",
        &[
            "status=timed_out&limit=25&page=2",
            "page=2&limit=25&status=Timed-Out",
            "page=2&limit=25&status=timed+out",
            "page=2&limit=25&status=TIMED%20OUT",
            "page=2&limit=25&status=%20TIMED_OUT%20&status=timed_out",
            "page=2&limit=25&status=TIMED%5FOUT&_=9",
        ],
    ),
    (
        "page=1&limit=10&execution_source=API%20Call",
        &[
            "execution_source=API+Call",
            "execution_source=api_call",
            "execution_source=API_CALL",
            "execution_source=Api-Call",
            "execution_source=API%20CALL&status=ALL",
        ],
    ),
    ("page=1&limit=10&execution_source=Schedule", &["execution_source=SCHEDULE", "execution_source=schedule"]),
    ("page=1&limit=10&execution_type=ASYNC", &["execution_type=async", "execution_type=Async&page=1"]),
    (
        "page=1&limit=10&start_date=2026-03-10&end_date=2026-03-14",
        &["end_date=2026-03-14&start_date=2026-03-10", "start_date=%202026-03-10+&end_date=2026%2D03%2D14&status=All"],
    ),
    (
        "page=1&limit=10&start_date=2026-03-10T00%3A00%3A00.000Z&end_date=2026-03-14T23%3A59%3A59.999Z",
        &[
            "start_date=2026-03-10T00:00:00Z&end_date=2026-03-14T23:59:59.999Z",
            "start_date=2026-03-10T02:00:00%2B02:00&end_date=2026-03-14T23:59:59.999000Z",
            "start_date=2026-03-10T02:00:00+02:00&end_date=2026-03-15T23:58:59.999%2B23:59",
            "start_date=2026-03-09t19:00:00-05:00&end_date=2026-03-14T23:59:59.9999-00:00",
            "start_date=2026-03-10%2000:00:00z&end_date=2026-03-14T23:59:59.999Z",
            "start_date=2026-03-09T23:59:59.9991Z&end_date=2026-03-14T23:59:59.999999Z",
        ],
    ),
    (
        "page=1&limit=10&start_date=2026-03-14T12%3A00%3A00.000Z&end_date=2026-03-14",
        &["end_date=2026-03-14&start_date=2026-03-14T12:00:00Z"],
    ),
    (
        "page=1&limit=10&start_date=0000-01-01T00%3A00%3A00.000Z&end_date=9999-12-31T23%3A59%3A59.999Z",
        &["start_date=0000-01-01T00:00:00%2B01:00&end_date=9999-12-31T23:59:59-23:59"],
    ),
    (
        "page=1&limit=10&slug=github,slack",
        &["slug=slack,github", "slug=github,slack,github", "slug=%20slack%20,,github,", "slug=slack%2Cgithub"],
    ),
    (
        "page=1&limit=10&workflow_name=Post%20message&sortAsc=true",
        &["sortAsc=TRUE&workflow_name=Post+message", "workflow_name=%20Post%20message%20&sortAsc=true"],
    ),
];

#[test]
fn every_spelling_has_one_canonical_form() {
    for (expected, spellings) in SPELLINGS {
        for spelling in *spellings {
            assert_eq!(canonical(spelling), *expected, "{spelling}");
        }
        assert_eq!(canonical(expected), *expected);
    }
}

#[test]
fn the_upstream_query_is_written_in_the_configured_dialect() {
    let raw = "execution_source=api-call&start_date=2026-03-10&end_date=2026-03-14";
    assert_eq!(
        upstream(raw, Dialect::Documented),
        "page=1&limit=10&execution_source=API%20Call&start_date=2026-03-10&end_date=2026-03-14"
    );
    assert_eq!(
        upstream(raw, Dialect::V3),
        "page=1&limit=10&execution_source=API_CALL&start_date=2026-03-10T00%3A00%3A00.000Z&end_date=2026-03-14T23%3A59%3A59.999Z"
    );
    let raw = "start_date=2026-03-10T12:00:00.5Z&execution_source=schedule";
    assert_eq!(
        upstream(raw, Dialect::Documented),
        "page=1&limit=10&execution_source=Schedule&start_date=2026-03-10T12%3A00%3A00.500Z"
    );
}

#[test]
fn errors_name_the_problem_and_the_accepted_values() {
    for (raw, message) in [
        (
            "status=erored",
            "status: `erored` is not accepted; use All, COMPLETED, ERRORED, RUNNING, STOPPED, STOPPING or TIMED_OUT (did you mean `ERRORED`?)",
        ),
        (
            "execution_source=webhook",
            "execution_source: `webhook` is not accepted; use All, Event, Schedule or API Call",
        ),
        (
            "execution_type=asinc",
            "execution_type: `asinc` is not accepted; use All, SYNC or ASYNC (did you mean `ASYNC`?)",
        ),
        ("page=0", "page: `0` is not accepted; use a whole number from 1"),
        ("page=-1", "page: `-1` is not accepted; use a whole number from 1"),
        ("page=%2B1", "page: `+1` is not accepted; use a whole number from 1"),
        ("page=1.0", "page: `1.0` is not accepted; use a whole number from 1"),
        ("page=9007199254740992", "page: `9007199254740992` is not accepted; use a whole number from 1"),
        ("page=99999999999999999999999", "page: `99999999999999999999999` is not accepted; use a whole number from 1"),
        ("limit=101", "limit: `101` is not accepted; use a whole number from 1 to 100"),
        ("limit=0", "limit: `0` is not accepted; use a whole number from 1 to 100"),
        ("sortAsc=1", "sortAsc: `1` is not accepted; use true or false"),
        (
            "start_date=2026-02-30",
            "start_date: `2026-02-30` is not accepted; use a date (YYYY-MM-DD) or a date-time with offset (RFC 3339)",
        ),
        (
            "start_date=2026-03-10T00:00:00",
            "start_date: `2026-03-10T00:00:00` is not accepted; use a date (YYYY-MM-DD) or a date-time with offset (RFC 3339)",
        ),
        ("start_date=2026-03-15&end_date=2026-03-14", "start_date (2026-03-15) is after end_date (2026-03-14)"),
        (
            "start_date=2026-03-15T00:00:00Z&end_date=2026-03-14",
            "start_date (2026-03-15T00:00:00.000Z) is after end_date (2026-03-14)",
        ),
        ("page=1&page=2", "page is there twice with different values; send it once"),
        ("status=All&status=ERRORED", "status is there twice with different values; send it once"),
        (
            "stauts=ERRORED",
            "`stauts` is not a parameter of this resource (did you mean `status`?); it has page, limit, status, execution_source, execution_type, start_date, end_date, slug, workflow_id, workflow_name, execution_id, sortAsc",
        ),
        ("status=%zz", "status: `%zz` is not percent-encoded UTF-8"),
        ("status=%ff", "status: `%ff` is not percent-encoded UTF-8"),
        ("%f=1", "a parameter's name: `%f` is not percent-encoded UTF-8"),
        (
            "status=a%0ab%1b[31m",
            "status: `a\\nb\\u{1b}[31m` is not accepted; use All, COMPLETED, ERRORED, RUNNING, STOPPED, STOPPING or TIMED_OUT",
        ),
    ] {
        assert_eq!(list(raw).expect_err(raw), message);
    }
}

#[test]
fn malformed_dates_are_rejected() {
    for value in [
        "2026-3-1",
        "20260301",
        "2026-03-01T",
        "2026-13-01",
        "2026-03-10T24:00:00Z",
        "2026-03-10T25:00:00Z",
        "2026-03-10T00:00Z",
        "0000-12-31",
        "2026-03-10T00:00:60Z",
        "2026-03-15T23:59:60Z",
        "2026-03-10T00:00:00+24:00",
        "2026-03-10T00:00:00,5Z",
        "2026-03-10T00:00:00ZZ",
        "2026-03-10T00:00:00:00Z",
        "2026-03-10T00:00:00.5",
        "2026-03-10T00:00:00+0200",
        "2026-03-10T00:00:00[UTC]",
        "2026-03-10T00:00:00+02:00[Europe/Paris]",
        "today",
        "2026-03-10Z",
        "2026-W10-1",
        "-026-03-10",
        "2026-03-10T00:00:00.Z",
        "２０２６-03-10",
    ] {
        assert!(list(&format!("start_date={value}")).is_err(), "{value}");
    }
}

#[test]
fn a_long_value_is_shortened_in_the_message() {
    let message = list(&format!("status={}", "x".repeat(5000))).expect_err("no such status");
    assert!(message.len() < 300, "{message}");
}

#[test]
fn unknown_parameters_follow_the_policy() {
    let parse = |raw, unknown| ListQuery::parse(Some(raw), &policy(unknown)).map(|query| query.to_string());
    assert!(parse("z=1", UnknownParameters::Reject).is_err());
    assert_eq!(parse("z=1&page=2", UnknownParameters::Drop).as_deref(), Ok("page=2&limit=10"));
    assert_eq!(parse("z=%26&page=2&a=x+y", UnknownParameters::Forward).as_deref(), Ok("page=2&limit=10&a=x%20y&z=%26"));
    assert!(parse("z=1&z=2", UnknownParameters::Forward).is_err());
}

#[test]
fn batches_have_their_own_parameters() {
    let parse = |raw| BatchesQuery::parse(Some(raw), &policy(UnknownParameters::Reject)).map(|query| query.to_string());
    assert_eq!(parse("status=running&limit=5").as_deref(), Ok("page=1&limit=5&status=RUNNING"));
    assert!(parse("slug=slack").is_err());
}

#[test]
fn a_list_closes_at_its_end_unless_it_filters_by_what_changes() {
    let parse = |raw| ListQuery::parse(Some(raw), &policy(UnknownParameters::Forward)).expect("a valid query");
    let closing_time = |raw| parse(raw).closing_time().map(|end| end.to_string());
    let end = Some("2026-03-14T23:59:59.999Z");
    for raw in
        ["end_date=2026-03-14", "end_date=2026-03-14&status=All&execution_type=SYNC&slug=slack&start_date=2026-03-01"]
    {
        assert_eq!(closing_time(raw).as_deref(), end, "{raw}");
    }
    for raw in ["page=3", "end_date=2026-03-14&status=errored", "end_date=2026-03-14&state=failed"] {
        assert_eq!(closing_time(raw), None, "{raw}");
    }
}
