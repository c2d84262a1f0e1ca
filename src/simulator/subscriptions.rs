//! Webhook subscriptions that clients have registered.

use std::sync::Mutex;

use http::Uri;
use serde::Deserialize;
use serde_json::{Value, json};

use super::lock::lock;

/// A URL and the events that are delivered to it.
#[derive(Clone, Debug)]
pub(super) struct WebhookSubscription {
    pub(super) url: Uri,
    pub(super) events: Vec<String>,
}

/// All registered webhooks.
#[derive(Debug, Default)]
pub(super) struct WebhookSubscriptions(Mutex<Vec<WebhookSubscription>>);

impl WebhookSubscriptions {
    /// Registers a webhook and returns its JSON representation.
    ///
    /// # Errors
    /// If the body is not a valid registration; the error describes the invalid part.
    pub(super) fn register(&self, body: &[u8]) -> Result<Value, &'static str> {
        #[derive(Deserialize)]
        struct RegistrationBody {
            webhook_url: String,
            webhook_events: Vec<String>,
        }
        let RegistrationBody { webhook_url, webhook_events } =
            serde_json::from_slice(body).map_err(|_| "a body without webhook_url and webhook_events")?;
        let url: Uri = webhook_url.parse().map_err(|_| "webhook_url")?;
        if !matches!(url.scheme_str(), Some("http" | "https")) {
            return Err("the scheme of webhook_url");
        }
        if webhook_events.is_empty() {
            return Err("an empty list of webhook_events");
        }
        let mut subscriptions = lock(&self.0);
        subscriptions.push(WebhookSubscription { url, events: webhook_events.clone() });
        Ok(json!({
            "_id": format!("66{:022x}", subscriptions.len()),
            "webhook_url": webhook_url,
            "webhook_events": webhook_events,
            "method": "POST",
            "is_enabled": true,
        }))
    }

    pub(super) fn all(&self) -> Vec<WebhookSubscription> {
        lock(&self.0).clone()
    }
}
