use std::time::Duration;

use http::Request;
use http::header::ETAG;
use proptest::prelude::*;

use super::super::{COLLECTION, QueryPolicy, UnknownParameters};
use super::*;
use crate::clock::Clock;
use crate::simulator::{Simulator, SimulatorSettings};

const ORG_KEY: &str = "tk_derivation";

fn query(text: &str) -> ListQuery {
    let policy = QueryPolicy { max_limit: 100, unknown: UnknownParameters::Forward, ignored: Vec::new() };
    ListQuery::parse(Some(text), &policy).unwrap_or_else(|error| panic!("{text}: {error}"))
}

struct Refold {
    simulator: Simulator,
    clock: Clock,
}

impl Refold {
    fn new() -> Self {
        let clock = Clock::manual("2026-03-20T12:00:00Z".parse().expect("a timestamp"));
        let settings =
            SimulatorSettings { org_keys: vec![ORG_KEY.to_owned()], rate: None, ..SimulatorSettings::default() };
        Self { simulator: Simulator::new(settings, clock.clone()), clock }
    }

    fn ask(&self, account: &str, query: &ListQuery, dialect: Dialect) -> Bytes {
        let mut target = format!("{COLLECTION}?");
        query.write_upstream(dialect, &mut target);
        let request = Request::get(target).header("x-api-key", ORG_KEY).header("linked_account_id", account);
        let answer = self.simulator.respond(&request.body(()).expect("a request"));
        assert!(answer.headers().contains_key(ETAG), "{:?}", answer.body());
        answer.into_body()
    }

    /// Derives a page from a source whose pages are requested with a pause between them.
    fn derive(
        &self,
        account: &str,
        wanted: &ListQuery,
        source: &DerivationSource,
        pause: Duration,
    ) -> Option<DerivedPage> {
        let first = self.ask(account, source.first(), Dialect::Documented);
        let queries = match source {
            DerivationSource::Page(query) => vec![query.clone()],
            DerivationSource::CompleteList(query) => query.all_pages(&first)?,
        };
        let mut bodies = vec![first];
        for query in &queries[1..] {
            self.clock.advance(pause);
            bodies.push(self.ask(account, query, Dialect::Documented));
        }
        wanted.derive(&queries.iter().zip(&bodies).collect::<Vec<_>>(), Dialect::Documented)
    }
}

fn filters() -> impl Strategy<Value = String> {
    let one_of = |name: &'static str, values: &'static [&'static str]| {
        proptest::option::weighted(0.4, proptest::sample::select(values))
            .prop_map(move |value| value.map_or(String::new(), |value| format!("&{name}={value}")))
    };
    (
        one_of("status", &["COMPLETED", "ERRORED", "RUNNING", "STOPPED", "STOPPING", "TIMED_OUT"]),
        one_of("execution_source", &["Event", "Schedule", "API Call"]),
        one_of("execution_type", &["SYNC", "ASYNC"]),
        one_of("sortAsc", &["true", "false"]),
        one_of("workflow_id", &["64f7258e35b72267edc02589"]),
        one_of("start_date", &["2026-03-19"]),
    )
        .prop_map(|(status, source, kind, sort, workflow, start)| status + &source + &kind + &sort + &workflow + &start)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_derived_page_equals_refolds_answer_at_that_moment(
        account in prop_oneof![
            4 => "[a-z]{2}[0-9]",
            1 => proptest::sample::select(&["acme-1", "acme-2", "umbrella@example.com", "empty", "globex"][..])
                .prop_map(str::to_owned),
        ],
        filters in filters(),
        (page, limit) in (1u64..4, prop_oneof![Just(10u32), Just(20), Just(50), Just(100), 1u32..=100]),
        (elapsed, pause) in (0u64..90_000, prop_oneof![Just(0u64), 0u64..40_000]),
    ) {
        let refold = Refold::new();
        refold.clock.advance(Duration::from_millis(elapsed));
        let wanted = query(&format!("page={page}&limit={limit}{filters}"));
        for source in wanted.sources() {
            let Some(derived) = refold.derive(&account, &wanted, &source, Duration::from_millis(pause)) else { continue };
            let answer = refold.ask(&account, &wanted, Dialect::Documented);
            prop_assert_eq!(
                std::str::from_utf8(&derived.page.body), std::str::from_utf8(&answer), "{} from {:?}", wanted, source
            );
            let same = ValidatedBody::page(answer, wanted.page(), wanted.limit()).expect("it is documented");
            prop_assert_eq!(derived.page.progress, same.progress);
        }
    }
}

#[test]
fn a_smaller_page_and_filtered_views_are_derived() {
    let refold = Refold::new();
    // Counts the larger pages of the same list and the complete lists without filters that a page is derived from.
    let sources = |wanted: &str, account: &str| {
        let wanted = query(wanted);
        let derived = |source: &DerivationSource| refold.derive(account, &wanted, source, Duration::ZERO).is_some();
        let (pages, wholes): (Vec<_>, Vec<_>) =
            wanted.sources().filter(derived).partition(|source| matches!(source, DerivationSource::Page(_)));
        (pages.len(), wholes.len())
    };
    // 25 executions, all of them long settled.
    assert_eq!(sources("status=ERRORED", "acme-2"), (4, 5), "put together of pages of any size");
    assert_eq!(sources("limit=10&page=2", "acme-2"), (4, 0), "100, 50, 25 and 20 hold 11 to 20");
    assert_eq!(sources("limit=10&page=3", "acme-2"), (4, 0));
    assert_eq!(sources("limit=7&page=3", "acme-2"), (3, 0), "15 to 21 lie across two pages of 20 and of 10");
    assert_eq!(sources("limit=10&page=4", "acme-2"), (0, 0), "beyond the end");
    assert_eq!(sources("", "empty"), (4, 0));
    assert_eq!(sources("status=RUNNING", "empty"), (4, 5));
    assert_eq!(sources("limit=100&workflow_id=x&start_date=2026-03-01", "acme-2"), (0, 0));
    // 2,480 executions are no small account.
    assert_eq!(sources("limit=100&status=ERRORED", "globex"), (0, 0));
}

#[test]
fn a_page_that_does_not_decide_is_not_a_source() {
    let page = |docs: &str, total: u64| {
        let pagination = serde_json::to_string(&Pagination::of(total, 10, 1)).expect("it serialises");
        Bytes::from(format!(r#"{{"docs":{docs},{}"#, &pagination[1..]))
    };
    let derive = |wanted: &str, body: &Bytes, dialect| query(wanted).derive(&[(&query(""), body)], dialect).is_some();
    let shown = page(r#"[{"status":"ERRORED","execution_source":"API Call","type_of_execution":"SYNC"}]"#, 1);
    for (wanted, documented, v3) in [
        ("status=ERRORED", true, true),
        ("execution_source=API Call", true, false),
        ("execution_source=Event", true, false),
        ("execution_type=SYNC", true, true),
        ("slug=slack", false, false),
        ("sortAsc=true", false, false),
        ("x=1", false, false),
        ("limit=1", true, true),
    ] {
        assert_eq!(derive(wanted, &shown, Dialect::Documented), documented, "{wanted}");
        assert_eq!(derive(wanted, &shown, Dialect::V3), v3, "{wanted}");
    }
    for (docs, total) in [
        (r#"[{"status":"Errored"}]"#, 1),
        (r#"[{"status":"PAUSED"}]"#, 1),
        (r#"[{"state":"ERRORED"}]"#, 1),
        (r#"[{"status":"ERRORED"}]"#, 2),
        (r#"[{"status":"ERRORED","status":"COMPLETED"}]"#, 1),
        ("[1]", 1),
    ] {
        assert!(!derive("status=ERRORED", &page(docs, total), Dialect::Documented), "{docs} of {total}");
    }
    let more = String::from_utf8(shown.to_vec()).expect("JSON").replacen('{', r#"{"next":1,"#, 1);
    assert!(!derive("limit=1", &more.into(), Dialect::Documented), "an undocumented member");
}

#[test]
fn a_derived_page_names_its_kinds() {
    use super::super::derivation_kind::DerivationKind::{ExecutionType, Slice, Source, Status};

    let refold = Refold::new();
    for (wanted, source, kinds) in [
        ("limit=10", "limit=50", &[Slice][..]),
        ("status=ERRORED&limit=50", "limit=100", &[Status]),
        ("status=COMPLETED&limit=5", "limit=100", &[Slice, Status]),
        ("status=COMPLETED&limit=5&page=2", "limit=100", &[Slice, Status]),
        ("execution_source=Event&execution_type=SYNC&limit=50", "limit=100", &[Source, ExecutionType]),
    ] {
        let (wanted, source) = (query(wanted), query(source));
        let body = refold.ask("acme-2", &source, Dialect::Documented);
        let derived = wanted.derive(&[(&source, &body)], Dialect::Documented).expect("it follows");
        assert_eq!(derived.kinds.iter().collect::<Vec<_>>(), kinds, "{wanted}");
        let at_most = wanted.kinds_from_complete_list(25);
        assert!(source != query("limit=100") || at_most == derived.kinds.and(at_most), "{wanted}");
    }
}
