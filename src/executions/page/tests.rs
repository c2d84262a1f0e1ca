//! Bodies that the upstream may send.

use proptest::prelude::*;

use super::*;

const DOCS: &str = r#"[ {"_id":"a", "status":"COMPLETED","n":1.50e3}, {"status":"ERRORED"} ]"#;

fn page(text: &str, page: u64, limit: u32) -> Result<String, String> {
    ValidatedBody::page(Bytes::copy_from_slice(text.as_bytes()), page, limit)
        .map(|validated| String::from_utf8(validated.body.to_vec()).expect("JSON is UTF-8"))
        .map_err(|error| error.to_string())
}

#[test]
fn a_complete_page_is_passed_on_unchanged() {
    let text = format!(
        r#" {{"docs":{DOCS},"totalDocs":2,"limit":10,"totalPages":1,"page":1,"pagingCounter":1,"hasPrevPage":false,"hasNextPage":false,"prevPage":null,"nextPage":null,"extra":[1]}} "#
    );
    assert_eq!(page(&text, 1, 10).as_deref(), Ok(text.as_str()));
}

#[test]
fn invalid_utf_8_is_rejected_only_in_strings_that_are_read() {
    let body = |id: &[u8], status: &[u8]| {
        let parts: [&[u8]; 5] = [br#"{"_id":""#, id, br#"","status":""#, status, br#""}"#];
        Bytes::from(parts.concat())
    };
    let progress =
        |id: &[u8], status: &[u8]| ValidatedBody::single(body(id, status)).map(|validated| validated.progress);
    assert_eq!(progress(b"\xff", b"COMPLETED"), Ok(Progress::Settled));
    assert!(progress(b"a", b"COMPLETED\xff").is_err());
}

#[test]
fn missing_fields_are_computed_and_docs_stay_unchanged() {
    let text = format!(r#"{{"totalDocs":25,"docs":{DOCS},"x":1}}"#);
    assert_eq!(
        page(&text, 2, 2).expect("it can be completed"),
        format!(
            r#"{{"docs":{DOCS},"x":1,"totalDocs":25,"limit":2,"totalPages":13,"page":2,"pagingCounter":3,"hasPrevPage":true,"hasNextPage":true,"prevPage":1,"nextPage":3}}"#
        )
    );
}

#[test]
fn only_the_last_page_determines_a_missing_total() {
    let last = format!(r#"{{"docs":{DOCS},"hasNextPage":false}}"#);
    assert!(page(&last, 3, 10).expect("it can be completed").contains(r#""totalDocs":22,"limit":10,"totalPages":3"#));
    let earlier = format!(r#"{{"docs":{DOCS},"hasNextPage":true}}"#);
    assert!(page(&earlier, 3, 10).is_err());
}

#[test]
fn an_empty_list_has_one_page() {
    assert_eq!(
        page(r#"{"docs":[],"totalDocs":0}"#, 1, 10).expect("it can be completed"),
        r#"{"docs":[],"totalDocs":0,"limit":10,"totalPages":1,"page":1,"pagingCounter":1,"hasPrevPage":false,"hasNextPage":false,"prevPage":null,"nextPage":null}"#
    );
}

#[test]
fn extreme_page_numbers_do_not_overflow() {
    let of = |number: u64, more: &str| page(&format!(r#"{{"docs":{DOCS},"page":{number}{more}}}"#), 1, 10);
    let first = of(0, r#","totalDocs":2,"hasPrevPage":true"#).expect("it can be completed");
    assert!(first.contains(r#""page":0,"pagingCounter":1,"hasPrevPage":true"#), "{first}");
    assert!(first.contains(r#""prevPage":0,"nextPage":1"#), "{first}");
    let last = of(u64::MAX, r#","hasNextPage":false"#).expect("it can be completed");
    assert!(last.contains(&format!(r#""totalDocs":{},"limit":10"#, u64::MAX)), "{last}");
    let beyond = of(u64::MAX, r#","totalDocs":2,"hasNextPage":true"#).expect("it can be completed");
    assert!(beyond.contains(&format!(r#""prevPage":{},"nextPage":{}"#, u64::MAX - 1, u64::MAX)), "{beyond}");
}

#[test]
fn undocumented_shapes_are_rejected() {
    for text in [
        "",
        "[]",
        "null",
        "{}",
        r#"{"docs":null,"totalDocs":0}"#,
        r#"{"docs":[1],"totalDocs":1}"#,
        r#"{"docs":[["RUNNING"]],"totalDocs":1}"#,
        r#"{"docs":[],"totalDocs":"0"}"#,
        r#"{"docs":[],"totalDocs":0,"docs":[]}"#,
        r#"{"docs":[],"totalDocs":0} x"#,
        r#"{"docs":[],"totalDocs":0"#,
    ] {
        assert!(page(text, 1, 10).is_err(), "{text}");
    }
}

#[test]
fn one_running_execution_makes_a_page_live() {
    let progress = |docs: &str| {
        ValidatedBody::page(Bytes::from(format!(r#"{{"docs":{docs},"totalDocs":9}}"#)), 1, 10).map(|page| page.progress)
    };
    assert_eq!(progress(DOCS), Ok(Progress::Settled));
    assert_eq!(progress(r#"[{"status":"COMPLETED"},{"status":"STOPPING"}]"#), Ok(Progress::Live));
    assert_eq!(progress(r#"[{"status":"COMPLETED"},{"status":"PAUSED"}]"#), Ok(Progress::Unknown));
    assert_eq!(progress(r"[{}]"), Ok(Progress::Unknown));
}

#[test]
fn a_single_execution_is_an_object() {
    let progress =
        |text: &'static str| ValidatedBody::single(Bytes::from_static(text.as_bytes())).map(|found| found.progress);
    assert_eq!(progress(r#"{"_id":"a","status":"RUNN\u0049NG","nodes":[{"status":"COMPLETED"}]}"#), Ok(Progress::Live));
    assert_eq!(progress(r#"{"status":null}"#), Ok(Progress::Unknown));
    for text in [r#"["RUNNING"]"#, "null", "1", "", r#"{"status":"RUNNING""#, "<html>"] {
        assert!(progress(text).is_err(), "{text}");
    }
}

#[test]
fn an_error_does_not_quote_the_body() {
    let error = page(r#"{"docs":[],"totalDocs":0,"secret-member":oops}"#, 1, 10).expect_err("it is invalid");
    assert!(!error.contains("secret-member") && !error.contains("oops"), "{error}");
}

proptest! {
    #[test]
    fn a_scan_reads_what_the_parser_reads(
        names in prop::collection::vec(prop::sample::select(NAMES), 0..12),
        values in prop::collection::vec(prop::sample::select(VALUES), 12),
        docs in prop::sample::select(DOCUMENTS),
        at in any::<prop::sample::Index>(),
        with in prop_oneof![9 => Just(None), 1 => r"[ -~]?".prop_map(Some)],
    ) {
        let members = names.iter().zip(&values).map(|(name, value)| format!("\"{name}\":{value}"));
        let members: Vec<_> = std::iter::once(format!("\"docs\":{docs}")).chain(members).collect();
        let mut characters: Vec<String> = format!("{{{}}}", members.join(", ")).chars().map(String::from).collect();
        if let Some(with) = with {
            let index = at.index(characters.len());
            characters[index] = with;
        }
        let text = characters.concat();
        let parsed: Option<PageObject> = serde_json::from_str(&text).ok();
        let scanned = Scanner::new(&text).and_then(|mut scanner| {
            let page = PageObject::scan(&mut scanner)?;
            scanner.end().map(|()| page)
        });
        if !text.contains('\\') {
            prop_assert_eq!(scanned.is_some(), parsed.is_some(), "{}", text);
        }
        if let Some(scanned) = scanned {
            prop_assert_eq!(Some(content(&scanned)), parsed.as_ref().map(content), "{}", text);
        }
    }
}

const NAMES: &[&str] = &[
    "totalDocs",
    "limit",
    "totalPages",
    "page",
    "pagingCounter",
    "hasPrevPage",
    "hasNextPage",
    "prevPage",
    "nextPage",
    "other",
    "d\\u006fcs",
];
const VALUES: &[&str] =
    &["1", "0", "25", "null", "true", "false", "-1", "1.0", "\"1\"", "[{}]", "18446744073709551616", "1e2"];
const DOCUMENTS: &[&str] = &[
    "[]",
    "null",
    "[{}]",
    "[1]",
    r#"[{"status":"RUNNING"},{"status":"COMPLETED","status":7}]"#,
    r#"[{"st\u0061tus":"RUNNING"}]"#,
    r#"[{"status":"RUNN\u0049NG"},{"a":{"status":"RUNNING"}}]"#,
    r#"[{"status":"COMPLETED","name":"\u00e9 \" é"},{"status":null}]"#,
    r#"[{"status":["RUNNING"]},[]]"#,
];

fn content(page: &PageObject) -> String {
    let SentPagination { total_docs, limit, total_pages, page: number, paging_counter, .. } = &page.pagination;
    let SentPagination { has_prev_page, has_next_page, prev_page, next_page, .. } = &page.pagination;
    let numbers = (total_docs, limit, total_pages, number, paging_counter);
    let DocsSummary { count, progress } = &page.docs;
    format!("{count} {progress:?} {numbers:?} {has_prev_page:?} {has_next_page:?} {prev_page:?} {next_page:?}")
}

#[test]
fn a_single_execution_is_scanned_as_it_is_parsed() {
    for text in [
        r#"{"status":"RUNNING"}"#,
        r#" {"a":[1,{"status":"RUNNING"}],"status" : "COMPLETED"} "#,
        r#"{"status":"RUNN\u0049NG"}"#,
        r#"{"status":"COMPLETED","status":"RUNNING"}"#,
        r#"{"status":7}"#,
        r#"{"status":"RUNNING"} x"#,
        r#"[{"status":"RUNNING"}]"#,
        r#"{"status":"RUNNING","a":01}"#,
        "",
    ] {
        let parsed = serde_json::from_str::<ExecutionProgress>(text).ok().map(|execution| execution.0);
        let validated = ValidatedBody::single(Bytes::copy_from_slice(text.as_bytes()));
        assert_eq!(validated.ok().map(|validated| validated.progress), parsed, "{text}");
    }
}
