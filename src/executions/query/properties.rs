//! Properties of every query: its canonical form is stable, its spellings are equal, and different queries differ.

use std::fmt::Write as _;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

/// The meaning of a query, independent of its spelling.
#[derive(Clone, Debug, PartialEq)]
struct Meaning {
    page: u64,
    limit: u32,
    status: Option<&'static str>,
    source: Option<&'static str>,
    kind: Option<&'static str>,
    range: Option<Range>,
    slugs: std::collections::BTreeSet<String>,
    workflow_id: Option<String>,
    workflow_name: Option<String>,
    execution_id: Option<String>,
    ascending: Option<bool>,
}

/// A time range by its two ends, in seconds or days since 1970.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Range {
    Instants(i64, i64),
    Days(i64, i64),
}

/// Seeded randomness that chooses between spellings.
type Dice = fastrand::Rng;

const POLICY: fn() -> QueryPolicy =
    || QueryPolicy { max_limit: 100, unknown: UnknownParameters::Reject, ignored: vec!["_".to_owned()] };

fn meaning() -> impl Strategy<Value = Meaning> {
    let one_of = |values: &'static [&'static str]| proptest::option::of(proptest::sample::select(values));
    let text = || proptest::option::of("[a-zA-Z0-9 &=+%/é,._-]{0,8}[a-z0-9é&%+,]");
    (
        (1u64..2000, 1u32..=100),
        one_of(&["COMPLETED", "ERRORED", "RUNNING", "STOPPED", "STOPPING", "TIMED_OUT"]),
        one_of(&["Event", "Schedule", "API Call"]),
        one_of(&["SYNC", "ASYNC"]),
        proptest::option::of(prop_oneof![
            (-4_000_000_000_i64..4_000_000_000, 0i64..100_000_000)
                .prop_map(|(start, length)| Range::Instants(start, start + length)),
            (-700_000_i64..2_900_000, 0i64..1000).prop_map(|(start, length)| Range::Days(start, start + length)),
        ]),
        proptest::collection::btree_set("[a-zA-Z0-9_-]{1,6}", 0..4),
        (text(), text(), text()),
        proptest::option::of(any::<bool>()),
    )
        .prop_map(|((page, limit), status, source, kind, range, slugs, (id, name, execution), ascending)| {
            Meaning {
                page,
                limit,
                status,
                source,
                kind,
                range,
                slugs,
                workflow_id: id.map(|text| text.trim().to_owned()),
                workflow_name: name.map(|text| text.trim().to_owned()),
                execution_id: execution.map(|text| text.trim().to_owned()),
                ascending,
            }
        })
}

fn flip(dice: &mut Dice) -> bool {
    dice.bool()
}

fn any_case(text: &str, dice: &mut Dice) -> String {
    text.chars()
        .map(|letter| match letter {
            '_' | ' ' => ['_', '-', ' '][(dice.u32(..) % 3) as usize],
            letter if flip(dice) => letter.to_ascii_lowercase(),
            letter => letter.to_ascii_uppercase(),
        })
        .collect()
}

fn date_time(seconds: i64, dice: &mut Dice) -> String {
    let offset = i64::from(dice.u32(..) % 23) - 11;
    let local = Timestamp::from_second(seconds + offset * 3600).expect("in range").strftime("%Y-%m-%dT%H:%M:%S");
    match offset {
        0 if flip(dice) => format!("{local}Z"),
        _ => format!("{local}{}{:02}:00", if offset < 0 { '-' } else { '+' }, offset.abs()),
    }
}

fn date(day: i64) -> String {
    jiff::civil::date(1970, 1, 1).saturating_add(jiff::SignedDuration::from_hours(day * 24)).to_string()
}

/// Spells each parameter of a query in one of its ways.
fn spelled_pairs<'a>(meaning: &'a Meaning, dice: &mut Dice) -> Vec<(&'a str, String)> {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    if meaning.page != 1 || flip(dice) {
        let zeros = "0".repeat((dice.u32(..) % 3) as usize);
        pairs.push(("page", format!("{zeros}{}", meaning.page)));
    }
    if meaning.limit != 10 || flip(dice) {
        pairs.push(("limit", meaning.limit.to_string()));
    }
    for (name, value) in
        [("status", meaning.status), ("execution_source", meaning.source), ("execution_type", meaning.kind)]
    {
        match value {
            Some(value) => pairs.push((name, any_case(value, dice))),
            None if flip(dice) => pairs.push((name, any_case("All", dice))),
            None => {}
        }
    }
    match meaning.range {
        Some(Range::Instants(start, end)) => {
            pairs.push(("start_date", date_time(start, dice)));
            pairs.push(("end_date", date_time(end, dice)));
        }
        Some(Range::Days(start, end)) => {
            pairs.push(("start_date", date(start)));
            pairs.push(("end_date", date(end)));
        }
        None => {}
    }
    if !meaning.slugs.is_empty() {
        let mut slugs: Vec<&str> = meaning.slugs.iter().map(String::as_str).collect();
        let turn = dice.u32(..) as usize % slugs.len();
        slugs.rotate_left(turn);
        let first = slugs[0];
        slugs.push(if flip(dice) { first } else { "" });
        pairs.push(("slug", slugs.join(if flip(dice) { "," } else { " , " })));
    }
    for (name, value) in [
        ("workflow_id", &meaning.workflow_id),
        ("workflow_name", &meaning.workflow_name),
        ("execution_id", &meaning.execution_id),
    ] {
        if let Some(value) = value {
            pairs.push((name, if flip(dice) { format!(" {value} ") } else { value.clone() }));
        }
    }
    if let Some(ascending) = meaning.ascending {
        pairs.push(("sortAsc", any_case(&ascending.to_string(), dice)));
    }
    pairs
}

/// Encodes pairs as a query string, each character in one of its ways.
fn encoded(pairs: Vec<(&str, String)>, dice: &mut Dice) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        out.push_str(if out.is_empty() && flip(dice) { "" } else { "&" });
        out.push_str(name);
        out.push('=');
        for byte in value.bytes() {
            match byte {
                b' ' if flip(dice) => out.push('+'),
                byte if byte.is_ascii_alphanumeric() && flip(dice) => out.push(char::from(byte)),
                byte => write!(out, "%{byte:02x}").expect("a string takes all"),
            }
        }
    }
    out
}

/// Writes one of the many spellings of a query.
fn spell(meaning: &Meaning, dice: &mut Dice) -> String {
    let mut pairs = spelled_pairs(meaning, dice);
    if flip(dice) {
        pairs.push(("_", dice.u32(..).to_string()));
    }
    if flip(dice) && !pairs.is_empty() {
        pairs.push(pairs[0].clone());
    }
    // Fisher and Yates.
    for last in (1..pairs.len()).rev() {
        pairs.swap(last, dice.u32(..) as usize % (last + 1));
    }
    encoded(pairs, dice)
}

fn parse(raw: &str) -> ListQuery {
    ListQuery::parse(Some(raw), &POLICY()).unwrap_or_else(|error| panic!("{raw}: {error}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn all_spellings_of_a_query_are_equal(meaning in meaning(), seed in any::<u64>()) {
        let mut dice = Dice::with_seed(seed);
        let (one, other) = (spell(&meaning, &mut dice), spell(&meaning, &mut dice));
        prop_assert_eq!(parse(&one), parse(&other), "{} and {}", one, other);
    }

    #[test]
    fn canonicalisation_is_idempotent(meaning in meaning(), seed in any::<u64>()) {
        let mut dice = Dice::with_seed(seed);
        let query = parse(&spell(&meaning, &mut dice));
        let canonical = query.to_string();
        prop_assert_eq!(&parse(&canonical), &query);
        prop_assert_eq!(parse(&canonical).to_string(), canonical);
        let v3 = |query: &ListQuery| {
            let mut upstream = String::new();
            query.write_upstream(Dialect::V3, &mut upstream);
            upstream
        };
        // Dialect v3 has no dates, so a date comes back as an instant.
        prop_assert_eq!(v3(&parse(&v3(&query))), v3(&query));
        prop_assert_eq!(parse(&v3(&query)) == query, !matches!(meaning.range, Some(Range::Days(..))));
    }

    #[test]
    fn two_different_queries_are_never_equal(
        one in meaning(), other in meaning(), pick in 0usize..11, seed in any::<u64>()
    ) {
        let mut dice = Dice::with_seed(seed);
        // Queries that differ in one parameter are the hard case.
        let mut near = one.clone();
        match pick {
            0 => near.page = other.page,
            1 => near.limit = other.limit,
            2 => near.status = other.status,
            3 => near.source = other.source,
            4 => near.kind = other.kind,
            5 => near.range = other.range,
            6 => near.slugs.clone_from(&other.slugs),
            7 => near.workflow_id.clone_from(&other.workflow_id),
            8 => near.workflow_name.clone_from(&other.workflow_name),
            9 => near.execution_id.clone_from(&other.execution_id),
            _ => near.ascending = other.ascending,
        }
        let (left, right) = (parse(&spell(&one, &mut dice)), parse(&spell(&near, &mut dice)));
        prop_assert_eq!(left == right, one == near);
        prop_assert_eq!(left.to_string() == right.to_string(), one == near);
    }

    #[test]
    fn every_accepted_query_has_a_stable_canonical_form(raw in "\\PC{0,80}") {
        for unknown in [UnknownParameters::Reject, UnknownParameters::Forward, UnknownParameters::Drop] {
            let policy = QueryPolicy { unknown, ..POLICY() };
            if let Ok(query) = ListQuery::parse(Some(&raw), &policy) {
                let canonical = query.to_string();
                prop_assert_eq!(ListQuery::parse(Some(&canonical), &policy), Ok(query));
            }
        }
    }
}
