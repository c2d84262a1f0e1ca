//! The headers of a pass-through response that reach the caller.

use http::HeaderMap;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED, LINK};

use crate::caller::Caller;
use crate::error::{ClientError, Reason};
use crate::log_events;

const PASSED: [HeaderName; 5] = [CONTENT_TYPE, CONTENT_DISPOSITION, ETAG, LAST_MODIFIED, LINK];

/// Returns the headers that are passed on.
///
/// # Errors
/// If one of them contains an org key that the caller does not have, in any form.
pub(super) fn passed_headers(caller: &Caller, headers: &HeaderMap) -> Result<HeaderMap, ClientError> {
    let mut passed = HeaderMap::new();
    for name in &PASSED {
        for value in headers.get_all(name) {
            if caller.injects_org_key() && caller.tenant().org_keys().appear_in_header(value) {
                tracing::error!(message = log_events::UPSTREAM_RESPONSE_CONTAINS_ORG_KEY);
                let message = "Refold's response has a header that must not be shown";
                return Err(ClientError::new(Reason::UpstreamInvalidResponse, message));
            }
            passed.append(name, value.clone());
        }
    }
    Ok(passed)
}
