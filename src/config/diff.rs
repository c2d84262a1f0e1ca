//! What another configuration changes, setting by setting, for the log. No secret is in the file; where one is, and the
//! hashes of client keys, are shown as changed and no more.

use std::collections::BTreeMap;
use std::fmt;

use toml::{Table, Value};

use super::files::Files;
use super::model::Config;

/// The keys that tables of an array are told apart by.
const NAMES: [(&str, &str); 6] = [
    ("listeners", "address"),
    ("tenants", "id"),
    ("client_keys", "name"),
    ("client_certificates", "name"),
    ("issuers", "issuer"),
    ("pass_through", "path"),
];
/// Settings whose values are not shown.
const MASKED: [&str; 6] = ["org_key", "org_key_next", "secret", "sha256", "headers", "token"];

/// What a configuration was read from: to tell what another one changes. There is no secret in it.
#[derive(Clone, Debug, Default)]
pub struct Written {
    pub(super) tree: toml::Table,
    /// The files that it names; those for inbound TLS apart, which are looked after by themselves.
    pub files: Files,
}

/// One setting that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    /// Its path in the file, with dots between: `tenants.acme.limits.client.burst`.
    path: String,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// Values as they are written; `None` where the setting is left out.
    Value(Option<String>, Option<String>),
    /// Not to be shown, or the content of a file.
    Masked,
}

/// All settings that are not what they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes(Vec<Change>);

impl Config {
    /// What is not as it was in an older configuration.
    #[must_use]
    pub fn changes_since(&self, older: &Self) -> Changes {
        let (was, is) = (flat(&older.written.tree), flat(&self.written.tree));
        let mut changes = Vec::new();
        let added = is.keys().filter(|path| !was.contains_key(*path));
        let mut paths: Vec<&String> = was.keys().chain(added).collect();
        paths.sort();
        for path in paths {
            let (was, is) = (was.get(path), is.get(path));
            if was != is {
                changes.push(Change::of(path, was, is));
            }
        }
        changes.dedup();
        let files = self.written.files.changed_since(&older.written.files);
        changes.extend(files.map(|path| Change { path: format!("file {}", path.display()), what: What::Masked }));
        Changes(changes)
    }
}

impl Change {
    fn of(path: &str, was: Option<&Value>, is: Option<&Value>) -> Self {
        // Not even where a secret comes from.
        if let Some(last) = path.split('.').position(|name| MASKED.contains(&name)) {
            let path = path.split('.').take(last + 1).collect::<Vec<_>>().join(".");
            return Self { path, what: What::Masked };
        }
        let text = |value: Option<&Value>| value.map(Value::to_string);
        Self { path: path.to_owned(), what: What::Value(text(was), text(is)) }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, what } = self;
        match what {
            What::Masked => write!(f, "{path}: changed"),
            What::Value(was, is) => {
                let shown = |value: &Option<String>| value.clone().unwrap_or("(left out)".to_owned());
                write!(f, "{path}: {} -> {}", shown(was), shown(is))
            }
        }
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, change) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{change}")?;
        }
        Ok(())
    }
}

/// All settings by their paths.
fn flat(tree: &Table) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    flatten("", tree, &mut all);
    all
}

fn flatten(prefix: &str, table: &Table, all: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        let path = format!("{prefix}{name}");
        match value {
            Value::Table(table) => flatten(&format!("{path}."), table, all),
            Value::Array(items) if items.first().is_some_and(Value::is_table) => {
                let key = NAMES.iter().find(|(array, _)| array == name).map_or("", |(_, key)| key);
                let mut seen: Vec<String> = Vec::new();
                for table in items.iter().filter_map(Value::as_table) {
                    let own = table.get(key).and_then(Value::as_str).unwrap_or_default();
                    let before = seen.iter().filter(|name| *name == own).count();
                    seen.push(own.to_owned());
                    let own = if before == 0 { own.to_owned() } else { format!("{own}#{}", before + 1) };
                    flatten(&format!("{path}.{own}."), table, all);
                }
            }
            value => {
                all.insert(path, value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Environment;
    use super::*;

    fn config(top: &str, tenants: &str) -> Config {
        let mut environment = Environment::default();
        environment.insert("KEY", "tk_secret");
        environment.insert("OTHER_KEY", "tk_other_secret");
        let text = format!("{top}\n{tenants}");
        Config::parse(&text, Path::new("postern.toml"), &environment).unwrap_or_else(|error| panic!("{error}"))
    }

    fn tenant(id: &str, key: &str, hash: char, accounts: &str) -> String {
        format!(
            "[[tenants]]\nid = \"{id}\"\nmode = \"inject\"\norg_key = {{ env = \"{key}\" }}\n[[tenants.client_keys]]\nname = \"k\"\nsha256 = \"{}\"\nlinked_accounts = [{accounts}]\n",
            hash.to_string().repeat(64)
        )
    }

    #[test]
    fn a_change_is_told_by_its_path_with_both_values_and_secrets_only_as_changed() {
        let before = config(
            "[server]\ndrain_timeout = \"30s\"\n[cache.stale]\nif_error = \"1h\"",
            &(tenant("a", "KEY", '1', "\"*\"") + &tenant("b", "KEY", '2', "\"x\"")),
        );
        // The order of tables says nothing.
        let after = config(
            "[admin]\ntoken = { env = \"OTHER_KEY\" }\n[server]\ndrain_timeout = \"10s\"\n[limits.client]\nburst = 7\n[traces]\nheaders = { authorization = { env = \"KEY\" } }",
            &(tenant("b", "KEY", '2', "\"x\", \"y*\"") + &tenant("a", "OTHER_KEY", '3', "\"*\"")),
        );
        assert_eq!(
            after.changes_since(&before).to_string(),
            "admin.token: changed; cache.stale.if_error: \"1h\" -> (left out); limits.client.burst: (left out) -> 7; server.drain_timeout: \"30s\" -> \"10s\"; tenants.a.client_keys.k.sha256: changed; tenants.a.org_key: changed; tenants.b.client_keys.k.linked_accounts: [\"x\"] -> [\"x\", \"y*\"]; traces.headers: changed"
        );
        assert_eq!(after.changes_since(&after).to_string(), "none");
    }
}
