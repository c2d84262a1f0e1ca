//! `postern webhook`: what to register at Refold, so that it tells the gateway of changes.

use std::path::PathBuf;

use serde_json::json;

use super::{Failure, print};
use crate::config::{Config, Environment};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = "POSTERN_CONFIG")]
    config: PathBuf,
    /// Where Refold reaches the gateway: scheme and host.
    #[arg(long, value_name = "URL")]
    public_url: String,
    /// The tenant; the only one if left out.
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// An event to be told of, as the org's list of webhook events names it; can be given more than once.
    #[arg(long, value_name = "EVENT", required = true)]
    event: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = Config::load(&arguments.config, &Environment::from_process())?;
    let tenant = match (&arguments.tenant, config.tenants.as_slice()) {
        (None, [only]) => only,
        (None, _) => return Err("there are several tenants; name one with --tenant".into()),
        (Some(id), all) => {
            all.iter().find(|tenant| *tenant.id == **id).ok_or_else(|| format!("there is no tenant `{id}`"))?
        }
    };
    if !tenant.webhooks {
        return Err(format!("tenant `{}` takes no webhooks: set `webhooks = true`", tenant.id).into());
    }
    let url = format!("{}/hooks/refold/{}", arguments.public_url.trim_end_matches('/'), tenant.id);
    let body = json!({ "webhook_url": url, "webhook_events": arguments.event, "method": "POST" });
    print("# Register this at Refold, with the org API key of this tenant in REFOLD_ORG_KEY:");
    print(format_args!(
        "curl -X POST '{}api/v2/public/webhook' \\\n  --header \"x-api-key: $REFOLD_ORG_KEY\" --header 'content-type: application/json' \\\n  --data '{body}'",
        config.upstream.base_url
    ));
    print(
        "# A delivery drops what is cached for every `linked_account_id` in its body; one that names none drops the tenant's all.",
    );
    Ok(())
}
