//! The fields of `/status` are those that `docs/operators.md` describes.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::*;
use crate::cache::Usage;
use crate::caller::ClientKeyStatus;
use crate::config::Access;
use crate::gateway::TenantState;
use crate::limit::BudgetStatus;
use crate::observe::{
    ErrorGroup, Event, KeyCheck, KeyCheckResult, Latency, Occurrences, Quantiles, RecentError, RecentRenewalError,
    RenewalErrorGroup, Traffic,
};
use crate::tenant::{BudgetAvailability, BusyAccount, KindStatus, TenantStatus, TrustStatus};

const AT: Timestamp = Timestamp::UNIX_EPOCH;

/// An object and one of its fields.
type Field = (String, String);

fn text() -> String {
    "text".to_owned()
}

fn tenant() -> TenantState {
    let upstream = BudgetStatus {
        per_second: 20,
        burst: 5,
        rate_factor: 1.0,
        used: vec![1],
        waiting: 0,
        max_queue: 1000,
        paused_for: 0.0,
    };
    let kind =
        KindStatus { kind: "slice", state: "in_use", agreements: Some(1), seconds_left: Some(1), differences: 0 };
    TenantState {
        tenant: TenantStatus {
            id: text(),
            mode: "inject",
            credential_accepted: true,
            budget: BudgetAvailability::Available,
            upstream,
            linked_accounts: 1,
        },
        circuit: Circuit::Closed,
        derivation: Some(TrustStatus { comparisons: 0, kinds: vec![kind] }),
        webhooks: true,
        last_webhook: Some(AT),
        key_check: Some(KeyCheck { at: AT, key: "current", result: KeyCheckResult::Accepted }),
    }
}

fn client_key() -> ClientKeyStatus {
    ClientKeyStatus {
        tenant: text(),
        name: text(),
        access: Access::Read,
        linked_accounts: vec![text()],
        more_linked_accounts: 0,
        expires: Some(AT),
        per_second: Some(1),
        requests: 1,
        limited: 0,
        last_used_seconds_ago: Some(1),
    }
}

fn occurrences<E>(last: E) -> Occurrences<E> {
    Occurrences { count: 1, first_seconds_ago: 1.0, seconds_ago: 1.0, last: vec![last] }
}

fn error() -> ErrorGroup {
    let last = RecentError { seconds_ago: 1.0, request_id: text(), endpoint: "list", cause: Some(text()) };
    ErrorGroup {
        status: 502,
        error_code: text(),
        reason: Some("reason"),
        tenant: Some(text()),
        caller: Some(text()),
        linked_account: Some(text()),
        occurrences: occurrences(last),
    }
}

fn renewal_error() -> RenewalErrorGroup {
    let last = RecentRenewalError {
        seconds_ago: 1.0,
        query: text(),
        cause: Some(text()),
        upstream_message: Some(text()),
        upstream_request_id: Some(text()),
    };
    RenewalErrorGroup {
        error_code: text(),
        upstream_status: Some(500),
        tenant: text(),
        linked_account: Some(text()),
        occurrences: occurrences(last),
    }
}

fn fleet() -> FleetStatus {
    FleetStatus {
        name: text(),
        state: "shared",
        connected: true,
        problem: Some("problem".into()),
        members: 2,
        live: 2,
        rank: Some(0),
        replicas: 3,
        lag: Some(0.1),
        cache_current: true,
    }
}

/// A status in which no field is left out.
fn whole() -> StatusBody {
    let quantiles = Quantiles { count: 1, p50: 1.0, p99: 1.0 };
    let second = || vec![1];
    StatusBody {
        version: "1",
        host: text(),
        ready: true,
        draining: false,
        configuration: ReloadState { ok: false, error: Some(text()) },
        status: Status {
            at: AT,
            uptime: 1.0,
            traffic: Traffic {
                hit: second(),
                stale: second(),
                fetched: second(),
                passed: second(),
                refused: second(),
                limited: second(),
                failed: second(),
            },
            latency: Latency { hits: Some(quantiles), fetches: Some(quantiles) },
            cache: Usage { bytes: 1, capacity: 1, entries: 1 },
            circuit: Circuit::Closed,
            tenants: vec![tenant()],
            busiest: vec![BusyAccount { tenant: text(), linked_account: Some(text()), requests: 1 }],
            errors: vec![error()],
            renewal_errors: vec![renewal_error()],
            client_keys: vec![client_key()],
            events: vec![Event { at: AT, event: "purged", tenant: Some(text()), details: text() }],
            fleet: Some(fleet()),
        },
    }
}

/// The fields of an object and of the objects in it.
fn collect(object: &str, value: &Value, found: &mut BTreeSet<Field>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let path = if object.is_empty() { name.clone() } else { format!("{object}.{name}") };
        assert!(!value.is_null(), "{path} is left out");
        match value {
            Value::Object(_) => collect(&path, value, found),
            Value::Array(items) if items[0].is_object() => collect(&format!("{path}[]"), &items[0], found),
            _ => drop(found.insert((object.to_owned(), name.clone()))),
        }
    }
}

/// The fields that the page describes: those in backticks that are neither a setting nor a route.
fn documented() -> BTreeSet<Field> {
    let page = include_str!("../../../docs/operators.md");
    let (_, table) = page.split_once("| Object | Fields |\n|---|---|\n").expect("the table");
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    rows.flat_map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let is_field = |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase() || b"_059".contains(&byte));
        let fields: Vec<&str> = cells[2].split('`').skip(1).step_by(2).filter(is_field).collect();
        let objects = cells[1].split(", ").map(|object| if object == "(the whole)" { "" } else { object });
        let of_object = |object: &str| -> Vec<Field> {
            fields.iter().map(|field| (object.to_owned(), (*field).to_owned())).collect()
        };
        objects.flat_map(of_object).collect::<Vec<_>>()
    })
    .collect()
}

#[test]
fn the_page_for_operators_describes_every_field() {
    let mut fields = BTreeSet::new();
    collect("", &serde_json::to_value(whole()).expect("JSON"), &mut fields);
    let documented = documented();
    let undocumented: Vec<_> = fields.difference(&documented).collect();
    let gone: Vec<_> = documented.difference(&fields).collect();
    assert!(undocumented.is_empty() && gone.is_empty(), "undocumented {undocumented:?}, gone {gone:?}");
}
