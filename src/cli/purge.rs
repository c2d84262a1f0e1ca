//! `postern purge`: drops cached entries of a running gateway.

use serde_json::json;

use super::admin_client::AdminArguments;
use super::output::{CommandError, OutputFormat, print};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  postern purge --tenant acme --linked-account acme-1
  postern purge --tenant acme --config postern.toml
  postern purge --all --admin unix:/run/postern/admin.sock")]
pub(super) struct PurgeArguments {
    /// Tenant whose entries are dropped.
    #[arg(long, value_name = "ID", required_unless_present = "all")]
    tenant: Option<String>,
    /// Only the entries of this linked account.
    #[arg(long, visible_alias = "account", value_name = "ID", requires = "tenant")]
    linked_account: Option<String>,
    /// The entries of all tenants.
    #[arg(long, conflicts_with = "tenant")]
    all: bool,
    #[command(flatten)]
    admin: AdminArguments,
    /// Form of the result on standard output.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: OutputFormat,
}

/// Asks the admin listener to drop entries, and prints what it has dropped.
///
/// # Errors
/// If the listener can't be asked, or refuses.
pub(super) fn run(arguments: &PurgeArguments) -> Result<(), CommandError> {
    let body = match (&arguments.tenant, &arguments.linked_account) {
        (Some(tenant), Some(account)) => json!({ "tenant": tenant, "linked_account": account }),
        (Some(tenant), None) => json!({ "tenant": tenant }),
        (None, _) => json!({ "all": true }),
    };
    let purged = arguments.admin.client()?.post("/purge", &body)?;
    match (arguments.format, &arguments.tenant, &arguments.linked_account) {
        (OutputFormat::Json, ..) => print(purged),
        (_, Some(tenant), Some(account)) => print(format_args!("dropped: linked account {account} of tenant {tenant}")),
        (_, Some(tenant), None) => print(format_args!("dropped: all linked accounts of tenant {tenant}")),
        (_, None, _) => print("dropped: all entries of all tenants"),
    }
}
