use std::time::Duration;

use super::*;
use crate::observe::RequestOrigin;
use crate::observe::access_record::AccessError;
use crate::request::RequestId;
use crate::request::route::Resource;

const PRESENT: u64 = 1000;

fn second(number: u64) -> Moment {
    Moment::from_nanos(number * SECOND + 1)
}

fn answer(recent: &RecentActivity, at: u64, status: u16, cache: CacheOutcome, error_code: Option<&str>) -> RequestId {
    let request_id = RequestId::new();
    recent.answered(&AccessRecord {
        request_id,
        method: "GET",
        origin: RequestOrigin::default(),
        execution: None,
        bytes: None,
        resource: Resource::List,
        caller: None,
        key: None,
        canonical: None,
        status: StatusCode::from_u16(status).expect("a status"),
        error: error_code.map(|code| AccessError {
            code,
            label: "",
            credential_problem: None,
            cause: Some(&std::fmt::Error),
        }),
        cache,
        age: None,
        answered_at: second(at),
        duration: Duration::from_micros(if cache == CacheOutcome::Hit { 20 } else { 70_000 }),
        upstream_duration: None,
        trace_id: None,
    });
    request_id
}

const MISS: CacheOutcome = CacheOutcome::Miss { collapsed: false };

#[test]
fn an_answer_counts_once_in_its_second_and_class() {
    let recent = RecentActivity::default();
    for (status, cache) in [
        (200, CacheOutcome::Hit),
        (304, CacheOutcome::Hit),
        (200, CacheOutcome::HitStale),
        (200, MISS),
        (200, CacheOutcome::Request),
        (204, CacheOutcome::Bypass),
        (400, CacheOutcome::NotAsked),
        (401, CacheOutcome::NotAsked),
        (429, CacheOutcome::NotAsked),
        (502, MISS),
    ] {
        answer(&recent, PRESENT - 1, status, cache, None);
    }
    let traffic = recent.traffic(second(PRESENT));
    let all = [
        &traffic.hit,
        &traffic.stale,
        &traffic.fetched,
        &traffic.passed,
        &traffic.refused,
        &traffic.limited,
        &traffic.failed,
    ];
    assert_eq!(all.map(|series| series[SECONDS_SHOWN - 1]), [2, 1, 2, 1, 2, 1, 1]);
    assert_eq!(all.map(|series| series.iter().sum::<u32>()), [2, 1, 2, 1, 2, 1, 1], "and in no other second");
    assert!(all.iter().all(|series| series.len() == SECONDS_SHOWN));
}

#[test]
fn traffic_covers_five_minutes_without_the_present_second() {
    let recent = RecentActivity::default();
    for at in [PRESENT - 301, PRESENT - 300, PRESENT - 2, PRESENT] {
        answer(&recent, at, 200, CacheOutcome::Hit, None);
    }
    let hits = recent.traffic(second(PRESENT)).hit;
    let sum = hits.iter().sum::<u32>();
    assert_eq!((hits[0], hits[SECONDS_SHOWN - 2], hits[SECONDS_SHOWN - 1], sum), (1, 1, 0, 2));
    assert_eq!(recent.traffic(second(PRESENT + 400)).hit.iter().sum::<u32>(), 0);
    let first = RecentActivity::default().traffic(Moment::default()).hit;
    assert_eq!(first, vec![0; SECONDS_SHOWN], "at the start of the clock");
}

#[test]
fn hits_and_fetches_have_separate_latencies_and_errors_none() {
    let recent = RecentActivity::default();
    for _ in 0..10 {
        answer(&recent, PRESENT, 200, CacheOutcome::Hit, None);
        answer(&recent, PRESENT, 200, MISS, None);
        answer(&recent, PRESENT, 504, MISS, None);
    }
    let latency = recent.latency(second(PRESENT + 1));
    let (hits, fetches) = (latency.hits.expect("there were hits"), latency.fetches.expect("there were fetches"));
    assert_eq!((hits.count, fetches.count), (10, 10));
    assert!((hits.p99 - 20.0).abs() < 3.0 && (fetches.p50 - 70_000.0).abs() < 9000.0, "{hits:?} {fetches:?}");
}

#[test]
fn errors_are_counted_by_kind_and_the_last_are_kept_newest_first() {
    let recent = RecentActivity::default();
    answer(&recent, 0, 200, CacheOutcome::Hit, None);
    let ids: Vec<String> = (0..80)
        .map(|at| answer(&recent, at, 400, CacheOutcome::NotAsked, Some("INVALID_PARAMETER")).to_string())
        .collect();
    let errors = recent.errors(second(80), AccountNaming::Plain);
    let [group] = &errors[..] else { panic!("{errors:?}") };
    assert_eq!((group.occurrences.count, group.status, group.error_code.as_str()), (80, 400, "INVALID_PARAMETER"));
    assert!(
        (group.occurrences.seconds_ago - 1.0).abs() < 1e-6 && (group.occurrences.first_seconds_ago - 80.0).abs() < 1e-6
    );
    let newest = &group.occurrences.last[0];
    assert_eq!((&newest.request_id, newest.endpoint), (&ids[79], "list"));
    assert_eq!(newest.cause, Some(std::fmt::Error.to_string()));
    assert_eq!(group.occurrences.last.last().map(|error| &error.request_id), Some(&ids[75]));
}

#[test]
fn an_error_does_not_wait_for_a_locked_list() {
    let recent = RecentActivity::default();
    let locked = recent.errors.lock_refused();
    answer(&recent, PRESENT, 404, CacheOutcome::NotAsked, Some("NOT_FOUND"));
    answer(&recent, PRESENT, 502, MISS, Some("UPSTREAM_UNREACHABLE"));
    drop(locked);
    let kept: Vec<_> = recent.errors(second(PRESENT), AccountNaming::Plain).iter().map(|error| error.status).collect();
    assert_eq!(kept, [502], "failures have a list of their own");
    assert_eq!(recent.traffic(second(PRESENT + 1)).refused[SECONDS_SHOWN - 1], 1, "it is counted all the same");
}
