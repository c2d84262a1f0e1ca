//! `postern keys`: lists the client keys of a running gateway and their use.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin_client::AdminArguments;
use super::output::{CommandError, OutputFormat, print, time_span};
use crate::suggest::suggest;

#[derive(Debug, clap::Args)]
#[command(after_help = "Columns:
  TENANT, NAME     as in the configuration; NAME is the caller in the log
  ACCESS           read, or read+write (stop and rerun, too)
  LINKED ACCOUNTS  the linked accounts that the key may name: ids, beginnings with *, or * for all; (+3) counts those that are
                   not shown, because there are many or because log.linked_accounts leaves them out
  EXPIRES          the time from which the key is refused
  LAST USED        time since its last request, if there was one since the gateway started
  REQUESTS/MIN     requests of the last minute, refused ones too
  429/MIN          those of them that were answered 429
  RATE             requests per second of the key's own budget; - if it has none

Examples:
  postern keys
  postern keys --tenant acme --config postern.toml
  postern keys --admin unix:/run/postern/admin.sock --format json")]
pub(super) struct KeysArguments {
    /// Only the keys of this tenant.
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    #[command(flatten)]
    admin: AdminArguments,
    /// Form of the list on standard output.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: OutputFormat,
}

/// A client key, as `/status` has it.
#[derive(Deserialize)]
struct Key {
    tenant: String,
    name: String,
    access: String,
    /// Earlier versions of the gateway do not say.
    #[serde(default)]
    linked_accounts: Vec<String>,
    #[serde(default)]
    more_linked_accounts: usize,
    expires: Option<Timestamp>,
    per_second: Option<u32>,
    requests: u64,
    limited: u64,
    last_used_seconds_ago: Option<u64>,
}

/// Most characters of the linked accounts in a row.
const MAX_ACCOUNTS: usize = 40;

const HEADINGS: [&str; 9] =
    ["TENANT", "NAME", "ACCESS", "LINKED ACCOUNTS", "EXPIRES", "LAST USED", "REQUESTS/MIN", "429/MIN", "RATE"];

/// Prints the client keys: their permissions, expiry and last use, the requests and 429s of the last minute, and the rate of
/// their own budgets.
///
/// # Errors
/// If the admin listener can't be asked, or there is no such tenant.
pub(super) fn run(arguments: &KeysArguments) -> Result<(), CommandError> {
    let status = arguments.admin.client()?.get("/status")?;
    if let Some(id) = &arguments.tenant {
        check_tenant(id, &status["tenants"])?;
    }
    let keys = status["client_keys"].as_array().ok_or("this version of the gateway does not list its client keys")?;
    let is_shown = |key: &&Value| arguments.tenant.as_ref().is_none_or(|id| key["tenant"] == **id);
    let keys: Vec<&Value> = keys.iter().filter(is_shown).collect();
    if arguments.format == OutputFormat::Json {
        return print(serde_json::to_string_pretty(&json!({ "client_keys": keys }))?);
    }
    let now: Option<Timestamp> = serde_json::from_value(status["at"].clone())?;
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    for key in keys {
        rows.push(row(&Key::deserialize(key)?, now));
    }
    for line in aligned(&rows) {
        print(line)?;
    }
    Ok(())
}

fn check_tenant(id: &str, tenants: &Value) -> Result<(), CommandError> {
    let known: Vec<&str> =
        tenants.as_array().into_iter().flatten().filter_map(|tenant| tenant["id"].as_str()).collect();
    if known.contains(&id) {
        return Ok(());
    }
    let suggestion = suggest(id, known).map_or(String::new(), |name| format!("; did you mean `{name}`?"));
    Err(format!("there is no tenant `{id}`{suggestion}").into())
}

fn row(key: &Key, now: Option<Timestamp>) -> [String; 9] {
    let expires = match key.expires {
        None => "never".to_owned(),
        Some(end) if now.is_some_and(|now| now >= end) => format!("{end} (expired)"),
        Some(end) => end.to_string(),
    };
    let used =
        key.last_used_seconds_ago.map_or("not since start".to_owned(), |seconds| format!("{} ago", time_span(seconds)));
    let rate = key.per_second.map_or("-".to_owned(), |rate| format!("{rate}/s"));
    let (requests, limited) = (key.requests.to_string(), key.limited.to_string());
    let accounts = accounts(&key.linked_accounts, key.more_linked_accounts);
    [key.tenant.clone(), key.name.clone(), key.access.clone(), accounts, expires, used, requests, limited, rate]
}

/// The linked accounts of a key in one cell, as far as there is room, and the number of the others.
fn accounts(shown: &[String], more: usize) -> String {
    let (mut cell, mut left_out) = (String::new(), more);
    for pattern in shown {
        let separator = if cell.is_empty() { "" } else { ", " };
        let room = MAX_ACCOUNTS.saturating_sub(cell.chars().count() + separator.len());
        if pattern.chars().count() <= room {
            cell.extend([separator, pattern]);
        } else if cell.is_empty() {
            cell.extend(pattern.chars().take(MAX_ACCOUNTS - 1).chain(['…']));
        } else {
            left_out += 1;
        }
    }
    match (left_out, cell.is_empty()) {
        (0, true) => "-".to_owned(),
        (0, false) => cell,
        (number, true) => format!("(+{number})"),
        (number, false) => format!("{cell} (+{number})"),
    }
}

/// Lines whose columns begin below each other.
fn aligned<const N: usize>(rows: &[[String; N]]) -> impl Iterator<Item = String> {
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    rows.iter().map(move |row| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_names_linked_accounts_as_far_as_there_is_room() {
        let long = "x".repeat(60);
        let cut = format!("{}…", "x".repeat(39));
        for (shown, more, cell) in [
            (vec!["*"], 0, "*"),
            (vec!["acme-*", "b"], 2, "acme-*, b (+2)"),
            (vec![&*long, "b"], 0, &format!("{cut} (+1)")),
            (vec!["b", &long, "c"], 0, "b, c (+1)"),
            (vec![], 3, "(+3)"),
            (vec![], 0, "-"),
        ] {
            let shown: Vec<String> = shown.into_iter().map(str::to_owned).collect();
            assert_eq!(accounts(&shown, more), cell);
        }
    }

    #[test]
    fn columns_begin_below_each_other() {
        let rows = [["A", "B"], ["long", "c"], ["é", "d"]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&rows).collect::<Vec<_>>(), ["A     B", "long  c", "é     d"]);
    }
}
