//! All spellings of a query share one upstream request.

use http::StatusCode;

use crate::support::{EXECUTIONS, KEY, World};

/// Queries by their meaning, each with its spellings.
const QUESTIONS: [(&str, &[&str]); 7] = [
    (
        "the first page",
        &[
            "",
            "page=1",
            "limit=10",
            "page=1&limit=10",
            "limit=10&page=1",
            "page=01&limit=010",
            "status=All",
            "status=all",
            "status=ALL&execution_source=all",
            "execution_source=All&execution_type=All&status=All",
            "page=&limit=&status=",
            "_=1700000000123",
            "page=1&_=1",
            "%70%61%67%65=%31",
            "page=+1+",
            "page=1&page=1",
            "&&page=1&",
            "slug=&workflow_id=",
        ],
    ),
    (
        "executions that timed out",
        &[
            "status=TIMED_OUT",
            "status=timed_out",
            "status=Timed_Out",
            "status=TIMED-OUT",
            "status=timed-out",
            "status=TIMED%20OUT",
            "status=timed+out",
            "status=%54IMED_OUT",
            "status=%20TIMED_OUT%20",
            "page=1&status=TIMED_OUT",
            "status=TIMED_OUT&limit=10",
            "status=TIMED_OUT&status=timed-out",
        ],
    ),
    (
        "executions by API call",
        &[
            "execution_source=API%20Call",
            "execution_source=API+Call",
            "execution_source=api%20call",
            "execution_source=API_CALL",
            "execution_source=api_call",
            "execution_source=Api-Call",
            "execution_source=API-CALL&status=All",
            "execution_type=all&execution_source=API_CALL",
        ],
    ),
    (
        "scheduled, synchronous executions",
        &[
            "execution_source=Schedule&execution_type=SYNC",
            "execution_source=SCHEDULE&execution_type=sync",
            "execution_type=Sync&execution_source=schedule",
            "execution_type=SYNC&execution_source=Schedule&limit=10",
        ],
    ),
    (
        "five days of March",
        &[
            "start_date=2026-03-10&end_date=2026-03-14",
            "end_date=2026-03-14&start_date=2026-03-10",
            "start_date=2026%2D03%2D10&end_date=%202026-03-14%20",
            "start_date=2026-03-10&end_date=2026-03-14&status=All&page=1",
        ],
    ),
    (
        "five days of March, by instants",
        &[
            "start_date=2026-03-10T00:00:00Z&end_date=2026-03-14T23:59:59.999Z",
            "start_date=2026-03-10T00:00:00.000Z&end_date=2026-03-14T23:59:59.999Z",
            "start_date=2026-03-10t00:00:00z&end_date=2026-03-14t23:59:59.999z",
            "start_date=2026-03-10%2000:00:00Z&end_date=2026-03-14%2023:59:59.999Z",
            "start_date=2026-03-10T02:00:00%2B02:00&end_date=2026-03-15T01:59:59.999%2B02:00",
            "start_date=2026-03-10T02:00:00+02:00&end_date=2026-03-15T01:59:59.999+02:00",
            "start_date=2026-03-09T19:00:00-05:00&end_date=2026-03-15T01:59:59.999%2B02:00",
        ],
    ),
    (
        "two applications, oldest first",
        &[
            "slug=slack,hubspot&sortAsc=true",
            "slug=hubspot,slack&sortAsc=true",
            "sortAsc=TRUE&slug=slack,hubspot",
            "slug=slack%2Chubspot&sortAsc=True",
            "slug=slack,%20hubspot&sortAsc=true",
            "slug=slack,hubspot,slack&sortAsc=true",
            "slug=,slack,,hubspot,&sortAsc=true",
            "slug=slack,hubspot&slug=hubspot,slack&sortAsc=true",
            "slug=+hubspot,slack+&sortAsc=true",
        ],
    ),
];

#[tokio::test]
async fn all_spellings_of_a_query_cost_one_upstream_request() {
    let world = World::start().await;
    let spellings: usize = QUESTIONS.iter().map(|(_, spellings)| spellings.len()).sum();
    assert!(spellings >= 60, "{spellings}");
    for (requests, (question, spellings)) in (1u64..).zip(QUESTIONS) {
        let mut bodies = Vec::new();
        for (number, spelling) in spellings.iter().enumerate() {
            // The header of the linked account has several spellings, too.
            let header = ["linked_account_id", "linked-account-id", "Linked-Account-Id"][number % 3];
            let target = if spelling.is_empty() { EXECUTIONS.to_owned() } else { format!("{EXECUTIONS}?{spelling}") };
            let answer = world.gateway.get(&target, &[("x-api-key", KEY), (header, "globex")]).await;
            assert_eq!(answer.status, StatusCode::OK, "{spelling}: {:?}", answer.body);
            bodies.push(answer.body);
        }
        assert!(bodies.iter().all(|body| *body == bodies[0]), "{question}");
        assert_eq!(world.refold.requests(), requests, "{question}");
    }
}
