//! Refold's webhooks: something has changed for a linked account, so what is kept of it is not worth keeping.
//!
//! A delivery is signed with the org API key: HMAC-SHA256 of the raw body, in hexadecimal digits, in `x-cobalt-signature`.
//! Its content is used for one thing alone, the names of linked accounts; a delivery that is repeated does no harm.

use http::{HeaderMap, HeaderName};
use serde_json::Value;

use crate::digest::decode_hex;
use crate::error::ClientError;
use crate::log_events;
use crate::tenant::Tenant;

/// The signature of a delivery.
pub const SIGNATURE: HeaderName = HeaderName::from_static("x-cobalt-signature");
/// Longest list of linked accounts that is taken from one delivery; beyond it everything is dropped.
const MOST_ACCOUNTS: usize = 100;

/// Takes a delivery: verifies it, and drops what is cached for the linked accounts that it names, or everything of the
/// tenant if it names none.
///
/// # Errors
/// 401 if it is not signed with one of the tenant's org keys.
pub fn receive(tenant: &Tenant, headers: &HeaderMap, body: &[u8]) -> Result<(), ClientError> {
    let mut signatures = headers.get_all(SIGNATURE).iter();
    let signature = match (signatures.next(), signatures.next()) {
        (Some(only), None) => decode_hex::<32>(only.as_bytes()),
        _ => None,
    };
    let signature = signature.ok_or_else(ClientError::invalid_credentials)?;
    if !tenant.org_keys().have_signed(body, &signature) {
        return Err(ClientError::invalid_credentials());
    }
    // What is no JSON names nobody.
    let delivery = serde_json::from_slice(body).unwrap_or(Value::Null);
    let mut accounts = Vec::new();
    named_in(&delivery, &mut accounts);
    if accounts.is_empty() || accounts.len() > MOST_ACCOUNTS {
        tenant.drop_all_entries();
    }
    for account in &accounts {
        tenant.drop_entries_of(account);
    }
    tracing::info!(tenant = %tenant.config.id, linked_accounts = accounts.len(), message = log_events::WEBHOOK_RECEIVED);
    Ok(())
}

/// Every `linked_account_id` in a delivery, wherever it stands: its body can be made up by whoever registered it.
fn named_in<'a>(value: &'a Value, accounts: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(id) if name == "linked_account_id" && !accounts.contains(&id.as_str()) => {
                        accounts.push(id);
                    }
                    _ => named_in(value, accounts),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| named_in(item, accounts)),
        _ => {}
    }
}
