//! Refold's webhooks: they report a change for a linked account, whose cached entries are then dropped.
//!
//! A delivery is signed with the org key: HMAC-SHA256 of the raw body, in hexadecimal digits, in `x-cobalt-signature`. Only
//! the ids of linked accounts are read from the body, so a repeated delivery is harmless.
//!
//! Any peer can send a delivery, and its signature is known to be wrong only at the end of its body. So a request without a
//! signature of the right form is refused before its body is read, the body is hashed while it arrives, and no more of it is
//! kept than 64 KiB, and of all deliveries together 4 MiB. A body that is not kept can't be read for linked
//! accounts: its valid signature drops all entries of the tenant. A tenant that does not exist, or takes no webhooks, is
//! answered like one whose key did not sign, and at the same time.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config;
use crate::digest::decode_hex;
use crate::error::{ClientError, Reason};
use crate::fleet::DropReach;
use crate::log_events;
use crate::request::body::{CallerBody, stream_within};
use crate::tenant::{SignatureCheck, Tenant};

/// The header that carries the signature of a delivery.
pub const SIGNATURE: HeaderName = HeaderName::from_static("x-cobalt-signature");
/// Length of an HMAC-SHA256, in bytes.
const SIGNATURE_LENGTH: usize = 32;
/// Most linked accounts in one delivery. If there are more, all entries of the tenant are dropped.
const MAX_ACCOUNTS: usize = 100;
/// Largest delivery; 413 above it.
const MAX_DELIVERY: usize = 16 << 20;
/// Largest delivery that is kept until its end.
const MAX_KEPT: usize = 64 << 10;
/// Time after which Refold is to deliver again what other replicas could not be told.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Most bytes of all deliveries that are kept at once.
const MAX_KEPT_IN_ALL: usize = 4 << 20;

/// The signature of a delivery, well-formed and not verified.
#[derive(Clone, Copy, Debug)]
pub struct Signature([u8; SIGNATURE_LENGTH]);

impl Signature {
    /// Reads the signature of a delivery.
    ///
    /// # Errors
    /// 401 if there is none, it is repeated, or it does not have the form of a signature.
    pub fn of(headers: &HeaderMap) -> Result<Self, ClientError> {
        let mut signatures = headers.get_all(SIGNATURE).iter();
        let signature = match (signatures.next(), signatures.next()) {
            (Some(only), None) => decode_hex::<SIGNATURE_LENGTH>(only.as_bytes()),
            _ => None,
        };
        signature.map(Self).ok_or_else(ClientError::invalid_credentials)
    }
}

/// The memory for all deliveries that are arriving.
#[derive(Clone, Debug)]
pub struct DeliveryMemory(Arc<Semaphore>);

impl Default for DeliveryMemory {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_KEPT_IN_ALL)))
    }
}

/// Receives a delivery, and drops the cached entries of the linked accounts in it; all entries of the tenant if it names none, or
/// was not kept. Without a tenant, the delivery is read and refused.
///
/// # Errors
/// 401 if the delivery is not signed with one of the tenant's org keys; 413, 408 and 400 as for every body; 503 if this replica is cut
/// off from its fleet, and only its own entries are dropped.
pub async fn receive(
    tenant: Option<&Tenant>,
    signature: Signature,
    body: CallerBody,
    memory: &DeliveryMemory,
    limits: &config::ServerConfig,
) -> Result<(), ClientError> {
    let mut check = tenant.map_or_else(SignatureCheck::without_keys, |tenant| tenant.org_keys().signature_check());
    let mut kept = KeptBody::new(memory);
    stream_within(body, MAX_DELIVERY, limits.body_timeout, |data| {
        check.update(&data);
        kept.push(&data);
    })
    .await?;
    let tenant = tenant.filter(|_| check.verify(&signature.0)).ok_or_else(ClientError::invalid_credentials)?;
    // A body that is not JSON names no linked account.
    let delivery = kept.bytes.and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or(Value::Null);
    match drop_entries(tenant, &delivery).await {
        DropReach::Everywhere => Ok(()),
        DropReach::ThisReplica => {
            let message = "other replicas could not be told of the change; deliver it again";
            Err(ClientError::new(Reason::Overloaded, message).retry_after(RETRY_AFTER))
        }
    }
}

/// Drops the entries that a delivery is about.
async fn drop_entries(tenant: &Tenant, delivery: &Value) -> DropReach {
    let mut accounts = Vec::new();
    find_accounts(delivery, &mut accounts);
    let reach = if accounts.is_empty() || accounts.len() > MAX_ACCOUNTS {
        tenant.drop_all_entries().await
    } else {
        tenant.drop_entries_of(&accounts).await
    };
    tracing::info!(tenant = %tenant.config.id, linked_accounts = accounts.len(), message = log_events::WEBHOOK_RECEIVED);
    reach
}

/// The body of a delivery, as long as it is small enough to keep.
struct KeptBody<'a> {
    memory: &'a DeliveryMemory,
    /// `None` once the body is not kept.
    bytes: Option<Vec<u8>>,
    /// The permits for `bytes`.
    permits: Option<OwnedSemaphorePermit>,
}

impl<'a> KeptBody<'a> {
    fn new(memory: &'a DeliveryMemory) -> Self {
        Self { memory, bytes: Some(Vec::new()), permits: None }
    }

    fn push(&mut self, data: &[u8]) {
        let Some(bytes) = &mut self.bytes else { return };
        let fits = bytes.len() + data.len() <= MAX_KEPT;
        let permit = u32::try_from(data.len()).ok().filter(|_| fits);
        let Some(more) = permit.and_then(|size| Arc::clone(&self.memory.0).try_acquire_many_owned(size).ok()) else {
            (self.bytes, self.permits) = (None, None);
            return;
        };
        bytes.extend_from_slice(data);
        match &mut self.permits {
            Some(permits) => permits.merge(more),
            none => *none = Some(more),
        }
    }
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_one_header_of_64_hexadecimal_digits_is_a_signature() {
        let digits = "0123456789abcdefABCDEF0123456789".repeat(2);
        for (values, is_one) in [
            (vec![&*digits], true),
            (vec![], false),
            (vec![&*digits, &*digits], false),
            (vec![&digits[1..]], false),
            (vec![""], false),
            (vec!["g123456789abcdefABCDEF01234567890123456789abcdefABCDEF0123456789"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(SIGNATURE, HeaderValue::from_str(value).expect("visible ASCII"));
            }
            assert_eq!(Signature::of(&headers).is_ok(), is_one, "{values:?}");
        }
    }

    #[test]
    fn all_deliveries_share_one_bound_of_memory() {
        let memory = DeliveryMemory::default();
        let mut bodies: Vec<_> = (0..=MAX_KEPT_IN_ALL / MAX_KEPT).map(|_| KeptBody::new(&memory)).collect();
        for body in &mut bodies {
            for _ in 0..MAX_KEPT / 1024 {
                body.push(&[b' '; 1024]);
            }
        }
        let kept = |bodies: &[KeptBody<'_>]| bodies.iter().filter(|body| body.bytes.is_some()).count();
        assert_eq!(kept(&bodies), bodies.len() - 1);
        assert_eq!(memory.0.available_permits(), 0);
        // One byte too many gives its memory back, for the next delivery.
        bodies[0].push(b" ");
        assert_eq!((kept(&bodies), memory.0.available_permits()), (bodies.len() - 2, MAX_KEPT));
        let mut next = KeptBody::new(&memory);
        next.push(&vec![b' '; MAX_KEPT]);
        assert!(next.bytes.is_some());
        drop((bodies, next));
        assert_eq!(memory.0.available_permits(), MAX_KEPT_IN_ALL);
    }
}
