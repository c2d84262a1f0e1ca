//! `postern webhook`: prints the request that registers the gateway's webhook with Refold.

use std::path::PathBuf;

use serde_json::json;

use super::output::{CommandError, print};
use super::shell::quoted;
use crate::config::{Config, Environment, parse_server_url};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  postern webhook --config postern.toml --public-url https://hooks.example.com --event execution.completed"
)]
pub(super) struct WebhookArguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "POSTERN_CONFIG")]
    config: PathBuf,
    /// URL under which Refold reaches the gateway: scheme and host.
    #[arg(long, value_name = "URL", value_parser = public_url)]
    public_url: String,
    /// Tenant; required if there are several.
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// Event to subscribe to, by its name in the org's list of webhook events; can be repeated.
    #[arg(long, value_name = "EVENT", required = true)]
    event: Vec<String>,
}

/// Reads the URL of a gateway as Refold reaches it.
fn public_url(text: &str) -> Result<String, String> {
    let refused = |why: &str| format!("{why}; write scheme and host, like \"https://hooks.example.com\"");
    let url = parse_server_url(text).map_err(refused)?;
    if url.query().is_some() || url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(refused("the URL must not have a query, user name or password"));
    }
    Ok(url.to_string().trim_end_matches('/').to_owned())
}

pub(super) fn run(arguments: &WebhookArguments) -> Result<(), CommandError> {
    let config = Config::load(&arguments.config, &Environment::from_process())?;
    let tenant = match (&arguments.tenant, config.tenants.as_slice()) {
        (None, [only]) => only,
        (None, _) => return Err("there are several tenants; name one with --tenant".into()),
        (Some(id), all) => {
            all.iter().find(|tenant| *tenant.id == **id).ok_or_else(|| format!("there is no tenant `{id}`"))?
        }
    };
    if !tenant.webhooks {
        return Err(format!("tenant `{}` does not accept webhooks: set `webhooks = true`", tenant.id).into());
    }
    let url = format!("{}/hooks/refold/{}", arguments.public_url, tenant.id);
    let body = json!({ "webhook_url": url, "webhook_events": arguments.event, "method": "POST" });
    print("# Registers the webhook with Refold; REFOLD_ORG_KEY is the org API key of this tenant:")?;
    let endpoint = format!("{}/api/v2/public/webhook", config.upstream.base_url.to_string().trim_end_matches('/'));
    print(format_args!(
        "curl -X POST {} \\\n  --header \"x-api-key: $REFOLD_ORG_KEY\" --header 'content-type: application/json' \\\n  --data {}",
        quoted(&endpoint),
        quoted(&body.to_string())
    ))?;
    print(
        "# A delivery drops the cache entries of every `linked_account_id` in its body, or of the whole tenant if there is none.",
    )
}
