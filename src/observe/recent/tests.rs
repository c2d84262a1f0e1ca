use std::time::Duration;

use http::Method;

use super::*;

const PRESENT: u64 = 1000;

fn second(number: u64) -> Moment {
    Moment::from_nanos(number * SECOND + 1)
}

fn answer(live: &RecentActivity, at: u64, status: u16, cache: CacheOutcome, error_code: Option<&str>) -> RequestId {
    let request_id = RequestId::new();
    live.answered(&AccessRecord {
        request_id,
        method: &Method::GET,
        resource: Resource::List,
        who: None,
        key: None,
        canonical: None,
        status: StatusCode::from_u16(status).expect("a status"),
        error_code,
        error_label: None,
        cache,
        age: None,
        at: second(at),
        duration: Duration::from_micros(if cache == CacheOutcome::Hit { 20 } else { 70_000 }),
        upstream: None,
        trace: None,
    });
    request_id
}

const MISS: CacheOutcome = CacheOutcome::Miss { collapsed: false };

#[test]
fn every_answer_is_counted_once_in_its_second_by_how_it_ended() {
    let live = RecentActivity::default();
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
        answer(&live, PRESENT - 1, status, cache, None);
    }
    let traffic = live.traffic(second(PRESENT));
    let all = [
        &traffic.hit,
        &traffic.stale,
        &traffic.fetched,
        &traffic.passed,
        &traffic.refused,
        &traffic.limited,
        &traffic.failed,
    ];
    assert_eq!(all.map(|series| series[SHOWN - 1]), [2, 1, 2, 1, 2, 1, 1]);
    assert_eq!(all.map(|series| series.iter().sum::<u32>()), [2, 1, 2, 1, 2, 1, 1], "and in no other second");
    assert!(all.iter().all(|series| series.len() == SHOWN));
}

#[test]
fn five_minutes_of_traffic_are_shown_and_the_present_second_is_not() {
    let live = RecentActivity::default();
    for at in [PRESENT - 301, PRESENT - 300, PRESENT - 2, PRESENT] {
        answer(&live, at, 200, CacheOutcome::Hit, None);
    }
    let hits = live.traffic(second(PRESENT)).hit;
    assert_eq!((hits[0], hits[SHOWN - 2], hits[SHOWN - 1], hits.iter().sum::<u32>()), (1, 1, 0, 2));
    assert_eq!(live.traffic(second(PRESENT + 400)).hit.iter().sum::<u32>(), 0);
    assert_eq!(RecentActivity::default().traffic(Moment::default()).hit, vec![0; SHOWN], "at the very beginning");
}

#[test]
fn hits_and_fetches_have_latencies_of_their_own_and_errors_none() {
    let live = RecentActivity::default();
    for _ in 0..10 {
        answer(&live, PRESENT, 200, CacheOutcome::Hit, None);
        answer(&live, PRESENT, 200, MISS, None);
        answer(&live, PRESENT, 504, MISS, None);
    }
    let latency = live.latency(second(PRESENT + 1));
    let (hits, fetches) = (latency.hits.expect("there were hits"), latency.fetches.expect("there were fetches"));
    assert_eq!((hits.count, fetches.count), (10, 10));
    assert!((hits.p99 - 20.0).abs() < 3.0 && (fetches.p50 - 70_000.0).abs() < 9000.0, "{hits:?} {fetches:?}");
}

#[test]
fn the_last_fifty_errors_are_remembered_the_newest_first() {
    let live = RecentActivity::default();
    answer(&live, 0, 200, CacheOutcome::Hit, None);
    let ids: Vec<String> = (0..80)
        .map(|at| answer(&live, at, 400, CacheOutcome::NotAsked, Some("INVALID_PARAMETER")).to_string())
        .collect();
    let errors = live.errors(second(80));
    assert_eq!(errors.len(), ERRORS);
    let newest = &errors[0];
    assert_eq!((&newest.request_id, newest.status, newest.error_code.as_str()), (&ids[79], 400, "INVALID_PARAMETER"));
    assert!((newest.seconds_ago - 1.0).abs() < 1e-6 && newest.endpoint == "list");
    assert_eq!(errors[ERRORS - 1].request_id, ids[30]);
}

#[test]
fn a_flood_of_errors_waits_for_nobody() {
    let live = RecentActivity::default();
    let looked_at = live.errors.lock().expect("nobody has it");
    answer(&live, PRESENT, 404, CacheOutcome::NotAsked, Some("NOT_FOUND"));
    assert!(looked_at.is_empty());
    drop(looked_at);
    assert_eq!(live.traffic(second(PRESENT + 1)).refused[SHOWN - 1], 1, "it is counted all the same");
}
