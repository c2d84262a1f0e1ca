//! A rotation of the fleet's secret: replicas with the old and the new one side by side stay one fleet.

use http::StatusCode;
use postern::fleet::FleetState;

use crate::support::replicas::Replicas;
use crate::support::{Configuration, EXECUTIONS, as_account, eventually};

const ONE: usize = 0;
const OTHER: usize = 1;
const NEW: &str = "another-fleet-secret-of-at-least-32-bytes";

type Change = fn(Configuration) -> Configuration;

/// The steps of docs/fleet.md, and the state before them.
const STEPS: [Change; 4] = [
    |config| config,
    |config| with_secrets(config, "FLEET_SECRET", Some("NEW_SECRET")),
    |config| with_secrets(config, "NEW_SECRET", Some("FLEET_SECRET")),
    |config| with_secrets(config, "NEW_SECRET", None),
];

fn with_secrets(config: Configuration, secret: &str, next: Option<&str>) -> Configuration {
    let table = format!("[fleet]\nsecret = {{ env = \"{secret}\" }}\nfirst_secret = {{ env = \"FLEET_SECRET\" }}\n");
    let next = next.map(|next| format!("next_secret = {{ env = \"{next}\" }}\n"));
    config.variable("NEW_SECRET", NEW).toml(&(table + &next.unwrap_or_default()))
}

impl Replicas {
    /// Pages and drops of either replica are those of the other.
    async fn assert_one_fleet(&self, at: &str) {
        self.until_together().await;
        for (from, to) in [(ONE, OTHER), (OTHER, ONE)] {
            let version = self.version(from, "acme-1").await;
            eventually(async || self.gateways[to].list("acme-1", "").await.status == StatusCode::OK).await;
            assert_eq!(self.deliver(from, "acme-1").await.status, StatusCode::NO_CONTENT, "{at}");
            assert!(self.version(to, "acme-1").await > version, "{at}: a drop at {from} is lost");
        }
        let budgets = redis::from_redis_value::<Vec<String>>(self.redis.query(&["KEYS", "pst:b1:{postern}:up:*"]));
        assert_eq!(budgets.expect("names").len(), 1, "{at}: there is one budget");
    }
}

#[tokio::test]
async fn no_step_of_a_rotation_loses_a_drop_or_a_budget() {
    let Some(mut fleet) = Replicas::start(2).await else { return };
    fleet.assert_one_fleet("before").await;
    for (number, step) in STEPS.into_iter().enumerate().skip(1) {
        for index in [ONE, OTHER] {
            let held = fleet.version(1 - index, "acme-1").await;
            fleet.replace(index, step).await;
            fleet.until_together().await;
            // What was sealed with either secret is opened, as long as both are there.
            let shared = fleet.gateways[index].list("acme-1", "").await;
            if number < 3 {
                assert_eq!(shared.first_document()["version"], held, "step {number}, replica {index}");
                assert!(shared.cache_status().ends_with("; detail=fleet"), "{}", shared.cache_status());
            }
            fleet.assert_one_fleet(&format!("step {number}, replica {index}")).await;
        }
    }
}

#[tokio::test]
async fn a_replica_with_another_secret_is_no_member_and_says_so() {
    let Some(mut fleet) = Replicas::start(2).await else { return };
    fleet.replace(OTHER, |config| config.variable("FLEET_SECRET", NEW)).await;
    let state = async |index: usize| fleet.gateways[index].admin("/status", &[]).await.json()["fleet"].take();
    eventually(async || state(OTHER).await["problem"].as_str().is_some_and(|problem| problem.contains("secret"))).await;
    eventually(async || state(OTHER).await["state"] == FleetState::Alone.name()).await;
    assert_eq!((&state(OTHER).await["connected"], &state(ONE).await["live"]), (&false.into(), &1.into()));
    assert_eq!(state(ONE).await["members"], 2, "a share of the budget is left to it");
    // It serves all the same, and does not pretend that it has told the others.
    assert_eq!(fleet.gateways[OTHER].list("acme-1", "").await.status, StatusCode::OK);
    assert_eq!(fleet.deliver(OTHER, "acme-1").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let rerun = format!("{EXECUTIONS}/e1/rerun");
    let rerun = fleet.gateways[OTHER].post(&rerun, &as_account("acme-1"), "").await;
    assert!(rerun.cache_status().ends_with("detail=dropped-on-this-replica-only"), "{}", rerun.cache_status());
}

#[tokio::test]
async fn a_fleet_that_was_stopped_starts_with_another_secret() {
    let Some(mut fleet) = Replicas::start(1).await else { return };
    fleet.version(ONE, "acme-1").await;
    fleet.replace(ONE, |config| config.variable("FLEET_SECRET", NEW)).await;
    fleet.until_together().await;
    assert_eq!(fleet.version(ONE, "acme-1").await, 2, "the names are others");
}
