//! Queries and ids in paths: the canonical form of a question is a fixed point, and part of a valid request target.

#![no_main]

use http::Uri;
use libfuzzer_sys::fuzz_target;
use postern::executions::{BatchesQuery, Dialect, ListQuery, PathId, QueryMemo, UnknownParameters};

fuzz_target!(|text: &str| {
    for unknown in [UnknownParameters::Reject, UnknownParameters::Forward, UnknownParameters::Drop] {
        let policy = postern_fuzz::policy(unknown);
        match ListQuery::parse(Some(text), &policy) {
            Ok(query) => {
                let canonical = query.to_string();
                assert_eq!(ListQuery::parse(Some(&canonical), &policy).as_ref(), Ok(&query), "{canonical}");
                for dialect in [Dialect::Documented, Dialect::V3] {
                    let mut target = "/?".to_owned();
                    query.write_upstream(dialect, &mut target);
                    assert!(target.parse::<Uri>().is_ok(), "{target}");
                    assert!(!target.contains('#'), "{target}");
                }
                let memo = QueryMemo::default();
                for _ in 0..3 {
                    let parsed = memo.parse_list(Some(text), &policy).expect("it is valid");
                    assert!(parsed.question.to_string().ends_with(&canonical));
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        if let Ok(query) = BatchesQuery::parse(Some(text), &policy) {
            let canonical = query.to_string();
            assert_eq!(BatchesQuery::parse(Some(&canonical), &policy).as_ref(), Ok(&query), "{canonical}");
        }
    }
    if let Ok(id) = PathId::parse(text) {
        let mut encoded = String::new();
        id.write_upstream(&mut encoded);
        assert!(!encoded.contains(['/', '\\', '?', '#']) && encoded != "." && encoded != "..", "{encoded}");
        assert_eq!(PathId::parse(&encoded), Ok(id));
    }
});
