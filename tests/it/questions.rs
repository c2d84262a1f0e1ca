//! Questions as they reach the upstream: dates and instants stay apart, and unknown parameters are forwarded where that is
//! configured.

use http::{HeaderValue, Method, StatusCode};

use crate::support::{Configuration, EXECUTIONS, ScriptedRefold, World, as_account};

/// A gateway in front of an upstream that records the targets of its requests.
struct Recorded(World<ScriptedRefold>);

impl Recorded {
    async fn start(change: fn(Configuration) -> Configuration) -> Self {
        Self(World::builder().refold(ScriptedRefold::start().await).config(change).start().await)
    }

    async fn get(&self, target: &str) -> StatusCode {
        self.0.gateway.get(target, &as_account("a")).await.status
    }

    /// The targets of the requests since the last call, below the collection's path.
    fn take(&self) -> Vec<String> {
        let targets = self.0.refold.take_targets();
        targets.into_iter().map(|target| target.replacen(EXECUTIONS, "", 1)).collect()
    }

    /// The value that a request for the list with this parameter sends upstream; `None` if it is refused.
    async fn sent(&self, name: &str, value: &str) -> Option<String> {
        let status = self.get(&format!("{EXECUTIONS}?{name}={value}")).await;
        let sent = self.take();
        assert_eq!(sent.len(), usize::from(status == StatusCode::OK), "{name}={value}: {status} {sent:?}");
        let (_, sent) = sent.first()?.split_once(&format!("&{name}="))?;
        Some(sent.replace("%3A", ":"))
    }
}

#[tokio::test]
async fn a_bare_date_and_an_instant_are_two_questions() {
    // A bare date; the instant that it could be mistaken for; what dialect v3 sends for both.
    let pairs = [
        ("end_date", "2026-03-14", "2026-03-14T23:59:59.999Z", "2026-03-14T23:59:59.999Z"),
        ("start_date", "2026-03-10", "2026-03-10T00:00:00Z", "2026-03-10T00:00:00.000Z"),
        ("start_date", "2026-03-11", "2026-03-11T02:00:00%2B02:00", "2026-03-11T00:00:00.000Z"),
        ("end_date", "2024-02-29", "2024-02-29T18:59:59.9999-05:00", "2024-02-29T23:59:59.999Z"),
    ];
    let documented = Recorded::start(|config| config).await;
    let v3 = Recorded::start(|config| config.set("upstream.dialect", "v3")).await;
    for (name, date, instant, spelled) in pairs {
        assert_eq!(documented.sent(name, date).await.as_deref(), Some(date));
        assert_eq!(documented.sent(name, instant).await.as_deref(), Some(spelled), "{date}");
        assert_eq!(v3.sent(name, date).await.as_deref(), Some(spelled));
        assert_eq!(v3.sent(name, instant).await.as_deref(), Some(spelled), "an entry of its own");
    }
}

#[tokio::test]
async fn one_instant_is_one_question_in_every_spelling() {
    let world = Recorded::start(|config| config).await;
    for end in [
        "2026-03-14T23:59:59.999Z",
        "2026-03-14t23:59:59.9999z",
        "2026-03-15%2001:59:59.999%2B02:00",
        "2026-03-15T01:59:59.999+02:00",
        "2026-03-14T00:00:59.999-23:59",
    ] {
        assert_eq!(world.get(&format!("{EXECUTIONS}?end_date={end}")).await, StatusCode::OK, "{end}");
    }
    assert_eq!(world.take(), ["?page=1&limit=10&end_date=2026-03-14T23%3A59%3A59.999Z"]);
}

#[tokio::test]
async fn every_date_of_the_calendar_is_accepted_and_no_other() {
    let world = Recorded::start(|config| config).await;
    for date in ["9999-12-31", "1969-12-31", "1900-01-01", "0001-01-01", "1582-10-10", "2000-02-29"] {
        for name in ["start_date", "end_date"] {
            assert_eq!(world.sent(name, date).await.as_deref(), Some(date));
        }
    }
    for (instant, spelled) in [
        ("9999-12-31T23:59:59.998Z", "9999-12-31T23:59:59.998Z"),
        ("1969-12-31T23:59:59.9995Z", "1969-12-31T23:59:59.999Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
        ("2026-03-10T23:00:00%2B23:59", "2026-03-09T23:01:00.000Z"),
        ("2026-03-10T00:00:00-23:59", "2026-03-10T23:59:00.000Z"),
        // A leap second is after the last millisecond of its minute.
        ("2017-01-01T00:59:60%2B01:00", "2016-12-31T23:59:59.999Z"),
        // RFC 3339 has no year 10000 to spell this one in UTC.
        ("9999-12-31T23:59:59-01:00", "9999-12-31T23:59:59.999Z"),
    ] {
        assert_eq!(world.sent("end_date", instant).await.as_deref(), Some(spelled), "{instant}");
    }
    for refused in [
        "0000-12-31",
        "10000-01-01",
        "1900-02-29",
        "2026-04-31",
        "2026-03-10T24:00:00Z",
        "2026-03-10T12:60:00Z",
        "2026-03-10T12:00:60Z",
        "2026-03-10T12:00:00%2B24:00",
        "2026-03-10T12:00:00-24:00",
        "2026-03-10T12:00:00%2B23:60",
        "2026-03-10T12:00:00,5Z",
        "2026-03-10T12:00:00.Z",
        "2026-03-10T12:00:00.5",
        "2026-03-10T12:00:00Z%2B02:00",
    ] {
        for name in ["start_date", "end_date"] {
            assert_eq!(world.sent(name, refused).await, None, "{refused}");
        }
    }
}

#[tokio::test]
async fn unknown_parameters_are_forwarded_on_every_resource() {
    let world = Recorded::start(|config| config.set("query.unknown_parameters", "forward")).await;
    for target in ["/e1", "/e1/nodes/n1/batches", ""] {
        let own = if target == "/e1" { "" } else { "page=1&limit=10&" };
        // The last two are other spellings of the one before.
        for query in ["", "?expand=nodes", "?z=1&expand=a%20b", "?expand=a+b&z=%31", "?_=7&%7A=1&expand=a%20b&z=1"] {
            assert_eq!(world.get(&format!("{EXECUTIONS}{target}{query}")).await, StatusCode::OK, "{target}{query}");
        }
        let plain = format!("{target}?{own}");
        let sent =
            [plain.trim_end_matches(['?', '&']), &format!("{plain}expand=nodes"), &format!("{plain}expand=a%20b&z=1")];
        assert_eq!(world.take(), sent);
    }
    for action in ["stop", "rerun"] {
        let target = format!("{EXECUTIONS}/e1/{action}?reason=by%20hand&_=7");
        let answer = world.0.gateway.send(Method::POST, &target, &as_account("a")).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(world.take(), [format!("/e1/{action}?reason=by%20hand")]);
    }
    let twice = world.get(&format!("{EXECUTIONS}/e1?expand=a&expand=b")).await;
    assert_eq!((twice, world.take()), (StatusCode::BAD_REQUEST, Vec::new()));
}

#[tokio::test]
async fn an_action_is_sent_without_the_callers_body() {
    let world = World::builder().refold(ScriptedRefold::start().await).start().await;
    let json = [&as_account("a")[..], &[("content-type", "application/json")]].concat();
    let text = [&as_account("a")[..], &[("content-type", "text/plain")]].concat();
    for (headers, body) in [(&json, "{}"), (&json, r#"{"reason":"by hand"}"#), (&text, "by hand"), (&json, "")] {
        for action in ["stop", "rerun"] {
            let answer = world.gateway.post(&format!("{EXECUTIONS}/e1/{action}"), headers, body).await;
            assert_eq!(answer.status, StatusCode::OK, "{action} {body}");
        }
    }
    for head in world.refold.received() {
        let length = head.headers.get("content-length").map(HeaderValue::as_bytes);
        assert!(length.is_none_or(|length| length == b"0"), "{head:?}");
        assert!(
            !head.headers.contains_key("content-type") && !head.headers.contains_key("transfer-encoding"),
            "{head:?}"
        );
    }
    assert_eq!(world.refold.requests(), 8);
}
