//! Webhooks: who has registered, and what they are told when an execution begins, ends or is stopped. Every delivery is signed
//! as Refold's are, with the org API key.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Simulator;
use crate::digest::Hex;

pub(super) const WEBHOOKS: &str = "/api/v2/public/webhook";
/// How often it is looked at what has changed.
const INTERVAL: Duration = Duration::from_millis(250);
/// Pauses before a delivery that failed is tried again.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

/// Where deliveries go.
#[derive(Clone, Debug)]
pub(super) struct Webhook {
    url: Uri,
    events: Vec<String>,
}

/// All that are registered.
#[derive(Debug, Default)]
pub(super) struct Webhooks(Mutex<Vec<Webhook>>);

impl Webhooks {
    /// Registers one; what of it is not valid otherwise.
    pub(super) fn register(&self, body: &[u8]) -> Result<Value, &'static str> {
        #[derive(Deserialize)]
        struct Registration {
            webhook_url: String,
            webhook_events: Vec<String>,
        }
        let Registration { webhook_url, webhook_events } =
            serde_json::from_slice(body).map_err(|_| "webhook_url and webhook_events are required")?;
        let url: Uri = webhook_url.parse().map_err(|_| "webhook_url is no URL")?;
        if !matches!(url.scheme_str(), Some("http" | "https")) || webhook_events.is_empty() {
            return Err("webhook_url has to begin with http, and webhook_events has to name one");
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Webhook { url, events: webhook_events.clone() });
        Ok(json!({
            "_id": format!("66{:022x}", all.len()),
            "webhook_url": webhook_url,
            "webhook_events": webhook_events,
            "method": "POST",
            "is_enabled": true,
        }))
    }

    fn all(&self) -> Vec<Webhook> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Simulator {
    /// Tells whoever has registered of all that changes in linked accounts that somebody has asked for, until it is dropped.
    pub(super) async fn tell_of_changes(&self) {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut told = self.0.clock.wall().as_millisecond();
        loop {
            self.0.clock.sleep_until(self.0.clock.now() + INTERVAL).await;
            let now = self.0.clock.wall().as_millisecond();
            let webhooks = self.0.webhooks.all();
            if !webhooks.is_empty() {
                for (account, execution) in self.changes(told, now) {
                    let event = format!("execution.{}", execution.status.to_lowercase());
                    let body = json!({
                        "event": event,
                        "linked_account_id": account,
                        "execution_id": execution.id(),
                        "status": execution.status,
                    });
                    for webhook in webhooks.iter().filter(|webhook| webhook.events.contains(&event)) {
                        let (simulator, client) = (self.clone(), client.clone());
                        let (url, body) = (webhook.url.clone(), body.to_string());
                        tokio::spawn(async move { simulator.deliver(&client, url, body).await });
                    }
                }
            }
            told = now;
        }
    }

    async fn deliver(&self, client: &Client<HttpConnector, Full<Bytes>>, url: Uri, body: String) {
        let key = self.0.settings.org_keys.first().map_or("", String::as_str);
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), body.as_bytes());
        for pause in PAUSES.into_iter().map(Some).chain([None]) {
            let request = Request::post(url.clone())
                .header(CONTENT_TYPE, "application/json")
                .header("x-cobalt-signature", Hex(signature.as_ref()).to_string())
                .body(Full::from(body.clone()));
            let Ok(request) = request else { return };
            if client.request(request).await.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            if let Some(pause) = pause {
                self.0.clock.sleep_until(self.0.clock.now() + pause).await;
            }
        }
    }
}
