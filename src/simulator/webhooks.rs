//! Delivers webhooks when an execution begins, ends or is stopped, signed with the org API key as Refold signs them.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;

use super::history::SimulatedExecution;
use super::state::SimulatorState;
use crate::digest::Hex;

/// Interval between two checks for changed executions.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// Pauses before a failed delivery is attempted again.
const RETRY_PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

/// Delivers every change in the queried linked accounts to the webhooks that subscribe to it, until the future is dropped.
pub(super) async fn deliver_changes(state: &Arc<SimulatorState>) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut checked = state.now();
    loop {
        state.clock.sleep_until(state.clock.now() + CHECK_INTERVAL).await;
        let now = state.now();
        let subscriptions = state.subscriptions.all();
        if !subscriptions.is_empty() {
            for (linked_account, execution) in state.changes(checked, now) {
                let (event, body) = webhook_event(&linked_account, &execution);
                for subscription in subscriptions.iter().filter(|subscription| subscription.events.contains(&event)) {
                    let (state, client) = (Arc::clone(state), client.clone());
                    let (url, body) = (subscription.url.clone(), body.clone());
                    tokio::spawn(async move { deliver(&state, &client, url, body).await });
                }
            }
        }
        checked = now;
    }
}

/// Returns the name of the event for an execution's present status, and the body of its deliveries.
fn webhook_event(linked_account: &str, execution: &SimulatedExecution) -> (String, String) {
    let event = format!("execution.{}", execution.status.to_lowercase());
    let body = json!({
        "event": event,
        "linked_account_id": linked_account,
        "execution_id": execution.id(),
        "status": execution.status,
    });
    (event, body.to_string())
}

async fn deliver(state: &SimulatorState, client: &Client<HttpConnector, Full<Bytes>>, url: Uri, body: String) {
    let key = state.settings.org_keys.first().map_or("", String::as_str);
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), body.as_bytes());
    for pause in RETRY_PAUSES.into_iter().map(Some).chain([None]) {
        let request = Request::post(url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("x-cobalt-signature", Hex(signature.as_ref()).to_string())
            .body(Full::from(body.clone()));
        let Ok(request) = request else { return };
        if client.request(request).await.is_ok_and(|response| response.status().is_success()) {
            return;
        }
        if let Some(pause) = pause {
            state.clock.sleep_until(state.clock.now() + pause).await;
        }
    }
}
