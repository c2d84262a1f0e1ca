//! The operations of Refold's public API, and whether the header `linked_account_id` confines each to one linked account.
//!
//! Made from the vendor's OpenAPI file; a test compares the two.

use http::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::Scope::{Account as ACCOUNT, Org as ORG};

/// The reach of forwarded requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// One linked account: the caller's.
    #[default]
    Account,
    /// The whole org.
    Org,
}

/// Method, path and scope. `ACCOUNT` has the header `linked_account_id`, and no path that names an account.
#[rustfmt::skip]
pub(super) const OPERATIONS: &[(&str, &str, Scope)] = &[
    ("GET", "/api/v2/public/application", ACCOUNT),
    ("GET", "/api/v2/public/application/{slug}", ACCOUNT),
    ("GET", "/api/v2/public/auth-structure/{slug}", ORG),
    ("POST", "/api/v2/public/connect-url", ORG),
    ("PUT", "/api/v2/public/linked-account/default-app/auth-credentials/{key}", ACCOUNT),
    ("DELETE", "/api/v2/public/linked-account/default-app/auth-credentials/{key}", ACCOUNT),
    ("PUT", "/api/v2/public/linked-account/integration/save-key-credentials/{slug}", ACCOUNT),
    ("PUT", "/api/v2/public/migrate-token", ACCOUNT),
    ("GET", "/api/v2/public/hosted-properties", ORG),
    ("GET", "/api/v2/public/linked-account", ORG),
    ("POST", "/api/v2/public/linked-account", ORG),
    ("PUT", "/api/v2/public/linked-account", ORG),
    ("GET", "/api/v2/public/linked-account/{linked_account_id}", ORG),
    ("DELETE", "/api/v2/public/linked-account/{linked_account_id}", ORG),
    ("DELETE", "/api/v2/public/linked-account/integration/{slug}", ACCOUNT),
    ("GET", "/api/v2/public/session/active-linked-account", ORG),
    ("GET", "/api/v2/public/linked-account/integration/oauth-url/{slug}", ACCOUNT),
    ("POST", "/api/v2/public/session-token", ORG),
    ("POST", "/api/v2/public/session-token/revoke", ORG),
    ("GET", "/api/v2/public/webhook", ORG),
    ("POST", "/api/v2/public/webhook", ORG),
    ("GET", "/api/v2/public/webhook/{id}", ORG),
    ("PUT", "/api/v2/public/webhook/{id}", ORG),
    ("DELETE", "/api/v2/public/webhook/{id}", ORG),
    ("PUT", "/api/v2/public/webhooks/group/edit", ORG),
    ("GET", "/api/v2/public/application/event", ORG),
    ("POST", "/api/v2/public/application/event", ORG),
    ("GET", "/api/v2/public/application/event/{event_id}", ORG),
    ("PUT", "/api/v2/public/application/event/{event_id}", ORG),
    ("DELETE", "/api/v2/public/application/event/{event_id}", ORG),
    ("POST", "/api/v2/public/event/{slug}", ACCOUNT),
    ("POST", "/api/v2/public/event/trigger", ACCOUNT),
    ("POST", "/api/v2/public/config/field", ACCOUNT),
    ("POST", "/api/v2/public/config/field/{fieldId}", ACCOUNT),
    ("PUT", "/api/v2/public/config/field/{fieldId}", ACCOUNT),
    ("DELETE", "/api/v2/public/config/field/{fieldId}", ACCOUNT),
    ("POST", "/api/v2/public/config/rule-engine/{fieldId}", ACCOUNT),
    ("POST", "/api/v2/public/config", ACCOUNT),
    ("PUT", "/api/v2/public/config", ACCOUNT),
    ("GET", "/api/v2/public/slug/{slug}/config", ACCOUNT),
    ("DELETE", "/api/v2/public/slug/{slug}/config", ACCOUNT),
    ("GET", "/api/v2/public/slug/{slug}/config/{configId}", ACCOUNT),
    ("DELETE", "/api/v2/public/slug/{slug}/config/{configId}", ACCOUNT),
    ("PATCH", "/api/v2/public/slug/{slug}/config/{configId}/workflows/{workflowId}", ACCOUNT),
    ("GET", "/api/v2/public/slug/{slug}/configs", ACCOUNT),
    ("GET", "/api/v2/public/dataref", ORG),
    ("POST", "/api/v2/public/dataref", ACCOUNT),
    ("GET", "/api/v2/public/dataref/{refName}", ACCOUNT),
    ("DELETE", "/api/v2/public/dataref/{refName}", ACCOUNT),
    ("PUT", "/api/v2/public/dataref/{refName}/clear-records", ACCOUNT),
    ("PUT", "/api/v2/public/datarefs/group", ACCOUNT),
    ("GET", "/api/v2/public/datastore/config/{slug}", ACCOUNT),
    ("GET", "/api/v2/public/datastore/config/{slug}/{datastore_name}/records", ACCOUNT),
    ("POST", "/api/v2/public/datastore/config/{slug}/{datastore_name}/search", ACCOUNT),
    ("GET", "/api/v2/public/env/definitions", ORG),
    ("GET", "/api/v2/public/env/definitions/{id}", ORG),
    ("GET", "/api/v2/public/env/value/{definition_id}", ORG),
    ("POST", "/api/v2/public/env/values", ACCOUNT),
    ("GET", "/api/v2/public/env/values/{scope}", ORG),
    ("DELETE", "/api/v2/public/env/values/{value_id}", ACCOUNT),
    ("GET", "/api/v2/public/execution", ACCOUNT),
    ("GET", "/api/v2/public/execution/{execution_id}", ACCOUNT),
    ("GET", "/api/v2/public/execution/{execution_id}/nodes/{node_id}/batches", ACCOUNT),
    ("POST", "/api/v2/public/execution/{instanceId}/stop", ACCOUNT),
    ("GET", "/api/v2/public/human-tasks/{id}", ORG),
    ("POST", "/api/v2/public/human-tasks/{id}", ORG),
    ("GET", "/api/v2/public/mcp-servers", ACCOUNT),
    ("POST", "/api/v2/public/mcp-servers", ACCOUNT),
    ("GET", "/api/v2/public/mcp-servers/{mcp_server_id}", ACCOUNT),
    ("PUT", "/api/v2/public/mcp-servers/{mcp_server_id}", ACCOUNT),
    ("DELETE", "/api/v2/public/mcp-servers/{mcp_server_id}", ACCOUNT),
    ("GET", "/api/v2/public/tables", ACCOUNT),
    ("POST", "/api/v2/public/tables", ACCOUNT),
    ("GET", "/api/v2/public/tables/{table_id}", ACCOUNT),
    ("PATCH", "/api/v2/public/tables/{table_id}", ACCOUNT),
    ("DELETE", "/api/v2/public/tables/{table_id}", ACCOUNT),
    ("DELETE", "/api/v2/public/tables/{table_id}/{record_id}", ACCOUNT),
    ("PATCH", "/api/v2/public/tables/{table_id}/columns/add", ACCOUNT),
    ("DELETE", "/api/v2/public/tables/{table_id}/columns/remove", ACCOUNT),
    ("PATCH", "/api/v2/public/tables/{table_id}/columns/rename", ACCOUNT),
    ("POST", "/api/v2/public/tables/{table_id}/search", ACCOUNT),
    ("PUT", "/api/v2/public/tables/group/edit", ACCOUNT),
    ("GET", "/api/v2/public/workflow", ACCOUNT),
    ("POST", "/api/v2/public/workflow", ACCOUNT),
    ("GET", "/api/v2/public/workflow/{workflowId}", ACCOUNT),
    ("DELETE", "/api/v2/public/workflow/{workflowId}", ORG),
    ("GET", "/api/v2/public/workflow/{workflowId}/edit", ACCOUNT),
    ("POST", "/api/v2/public/workflow/{workflowId}/execute", ACCOUNT),
    ("PUT", "/api/v2/public/workflow/{workflowId}/publish", ORG),
    ("GET", "/api/v2/public/workflow/enabled", ACCOUNT),
    ("GET", "/api/v2/public/workflow/request-structure/{workflowId}", ACCOUNT),
    ("GET", "/api/v2/public/workflow/versions/{workflowId}", ACCOUNT),
    ("GET", "/api/v1/workflow/public/scheduled", ACCOUNT),
    ("POST", "/api/v1/workflow/public/scheduled", ACCOUNT),
    ("PUT", "/api/v1/workflow/public/scheduled/{schedule_id}", ACCOUNT),
    ("DELETE", "/api/v1/workflow/public/scheduled/{schedule_id}", ACCOUNT),
    ("PUT", "/api/v1/workflow/public/scheduled/{schedule_id}/pause", ACCOUNT),
    ("PUT", "/api/v1/workflow/public/scheduled/{schedule_id}/resume", ACCOUNT),
    ("GET", "/api/v2/integration-schema/{slug}/actions", ACCOUNT),
    ("GET", "/api/v2/integration-schema/{slug}/actions/{action_id}", ACCOUNT),
    ("POST", "/api/v2/integration-schema/{slug}/actions/{action_id}/execute", ACCOUNT),
    ("POST", "/api/v2/public/execution/{instanceId}/rerun", ACCOUNT),
];

/// Returns true if a request is an operation that the header confines to one linked account. The segments of its path are
/// decoded. A path that could also be an operation of another scope is not one: servers differ in which they choose.
#[must_use]
pub(super) fn is_of_account<'a>(method: &Method, segments: &(impl Iterator<Item = &'a str> + Clone)) -> bool {
    let method = if *method == Method::HEAD { Method::GET } else { method.clone() };
    let mut of_account = false;
    for (_, _, scope) in OPERATIONS.iter().filter(|(name, path, _)| *name == method && fits(path, segments.clone())) {
        match scope {
            ACCOUNT => of_account = true,
            ORG => return false,
        }
    }
    of_account
}

/// Compares as the most lenient server does, regardless of case.
fn fits<'a>(template: &str, mut segments: impl Iterator<Item = &'a str>) -> bool {
    let mut parts = template.split('/').skip(1);
    let fit = parts
        .all(|part| segments.next().is_some_and(|segment| part.starts_with('{') || part.eq_ignore_ascii_case(segment)));
    fit && segments.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the operations out of the vendor's file, as far as its layout goes.
    fn documented() -> Vec<(String, String, Scope)> {
        let text = include_str!("../../tests/data/refold-openapi.yaml");
        let (_, text) = text.split_once("\npaths:\n").expect("the paths");
        let (mut path, mut found) = ("", Vec::<(String, String, Scope)>::new());
        let mut named = false;
        for line in text.lines().take_while(|line| line.is_empty() || line.starts_with(' ')) {
            let indent = line.len() - line.trim_start().len();
            let line = line.trim();
            match (indent, line.strip_suffix(':')) {
                (2, Some(name)) => path = name,
                (4, Some("parameters")) => panic!("{path} has parameters of its own"),
                (4, Some(method)) => found.push((method.to_ascii_uppercase(), path.to_owned(), ORG)),
                _ => {}
            }
            let by_reference = line == "- $ref: '#/components/parameters/LinkedAccountIdHeader'";
            if by_reference || (named && line == "in: header") {
                let (_, path, scope) = found.last_mut().expect("an operation");
                if !path.contains("{linked_account_id}") {
                    *scope = ACCOUNT;
                }
            }
            named = line == "- name: linked_account_id";
        }
        found
    }

    #[test]
    fn the_table_is_that_of_the_vendors_file() {
        let table: Vec<_> =
            OPERATIONS.iter().map(|(method, path, scope)| ((*method).to_owned(), (*path).to_owned(), *scope)).collect();
        assert_eq!(table, documented());
    }

    #[test]
    fn an_operation_of_another_scope_is_never_taken_for_one_of_an_account() {
        let of_account =
            |method: &str, path: &str| is_of_account(&method.parse().expect("a method"), &path.split('/').skip(1));
        for (method, path) in [
            ("GET", "/api/v2/public/workflow"),
            ("HEAD", "/api/v2/public/workflow/enabled"),
            ("POST", "/api/v2/public/event/trigger"),
            ("GET", "/api/v2/public/application/slack"),
            ("PUT", "/api/v1/workflow/public/scheduled/1/pause"),
        ] {
            assert!(of_account(method, path), "{method} {path}");
        }
        for (method, path) in [
            ("POST", "/api/v2/public/session-token"),
            ("POST", "/api/v2/public/connect-url"),
            ("DELETE", "/api/v2/public/linked-account/globex"),
            // Fits `/application/{slug}` too.
            ("GET", "/api/v2/public/application/event"),
            ("GET", "/api/v2/public/application/EVENT"),
            ("DELETE", "/api/v2/public/workflow/1"),
            ("GET", "/api/v2/public/workflow/1/2/3"),
            ("GET", "/api/v3/unknown"),
        ] {
            assert!(!of_account(method, path), "{method} {path}");
        }
    }
}
