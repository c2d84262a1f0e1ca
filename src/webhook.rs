//! Refold's webhooks: they report a change for a linked account, whose cached entries are then dropped.
//!
//! A delivery is signed with the org key: HMAC-SHA256 of the raw body, in hexadecimal digits, in `x-cobalt-signature`. Only
//! the ids of linked accounts are read from the body, so a repeated delivery is harmless.

use http::{HeaderMap, HeaderName};
use serde_json::Value;

use crate::digest::decode_hex;
use crate::error::ClientError;
use crate::log_events;
use crate::tenant::Tenant;

/// The header that carries the signature of a delivery.
pub const SIGNATURE: HeaderName = HeaderName::from_static("x-cobalt-signature");
/// Length of an HMAC-SHA256, in bytes.
const SIGNATURE_LENGTH: usize = 32;
/// Most linked accounts in one delivery. If there are more, all entries of the tenant are dropped.
const MAX_ACCOUNTS: usize = 100;

/// Verifies a delivery and drops the cached entries of the linked accounts in it; all entries of the tenant if it names none.
///
/// # Errors
/// 401, if the delivery is not signed with one of the tenant's org keys.
pub fn receive(tenant: &Tenant, headers: &HeaderMap, body: &[u8]) -> Result<(), ClientError> {
    let mut signatures = headers.get_all(SIGNATURE).iter();
    let signature = match (signatures.next(), signatures.next()) {
        (Some(only), None) => decode_hex::<SIGNATURE_LENGTH>(only.as_bytes()),
        _ => None,
    };
    let signature = signature.ok_or_else(ClientError::invalid_credentials)?;
    if !tenant.org_keys().have_signed(body, &signature) {
        return Err(ClientError::invalid_credentials());
    }
    // A body that is not JSON names no linked account.
    let delivery = serde_json::from_slice(body).unwrap_or(Value::Null);
    let mut accounts = Vec::new();
    find_accounts(&delivery, &mut accounts);
    if accounts.is_empty() || accounts.len() > MAX_ACCOUNTS {
        tenant.drop_all_entries();
    }
    for account in &accounts {
        tenant.drop_entries_of(account);
    }
    tracing::info!(tenant = %tenant.config.id, linked_accounts = accounts.len(), message = log_events::WEBHOOK_RECEIVED);
    Ok(())
}

/// Collects every `linked_account_id` in a delivery, at any depth, since the body's structure is configurable at Refold.
fn find_accounts<'a>(value: &'a Value, accounts: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(id) if name == "linked_account_id" && !accounts.contains(&id.as_str()) => {
                        accounts.push(id);
                    }
                    _ => find_accounts(value, accounts),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| find_accounts(item, accounts)),
        _ => {}
    }
}
