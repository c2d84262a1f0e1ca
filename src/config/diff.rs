//! Differences between two configurations, setting by setting, for the log. Secrets and hashes show only as changed.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value as Json;
use toml::{Table, Value};

use super::files::FileDigests;

/// Keys that identify a table in an array. The first of them that the table has identifies it.
const IDENTITIES: [&str; 5] = ["id", "name", "issuer", "address", "path"];

/// A configuration as it was written, with overrides but without defaults, and the digests of the files that it names. It
/// holds no secret.
#[derive(Clone, Debug, Default)]
pub(super) struct WrittenConfig {
    pub(super) tree: Table,
    /// The files that it names, without those for inbound TLS, which are watched separately.
    pub(super) files: FileDigests,
}

/// All settings that differ between two configurations.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes(Vec<Change>);

/// A setting, or a file, that differs.
#[derive(Clone, Debug, PartialEq)]
struct Change {
    /// Its path, joined by dots: `tenants.acme.limits.client.burst`.
    path: String,
    values: ChangedValues,
}

#[derive(Clone, Debug, PartialEq)]
enum ChangedValues {
    /// The earlier and the later value; `None` if the setting is left out.
    Shown(Option<Value>, Option<Value>),
    /// Values that must not be shown.
    Masked,
}

/// A setting as it was written.
#[derive(Clone, Copy, PartialEq)]
struct Setting<'a> {
    value: &'a Value,
    is_masked: bool,
}

type SettingsByPath<'a> = BTreeMap<String, Setting<'a>>;

impl WrittenConfig {
    /// The changes since an older configuration. Settings that are `writeOnly` in the schema are masked.
    pub(super) fn changes_since(&self, older: &Self, schema: &Json) -> Changes {
        let (mut earlier, mut later) = (SettingsByPath::new(), SettingsByPath::new());
        collect("", &older.tree, schema, &mut earlier);
        collect("", &self.tree, schema, &mut later);
        let mut changes = Vec::new();
        for path in earlier.keys().chain(later.keys().filter(|path| !earlier.contains_key(*path))) {
            let (earlier, later) = (earlier.get(path), later.get(path));
            if earlier == later {
                continue;
            }
            let value = |setting: Option<&Setting<'_>>| setting.map(|setting| setting.value.clone());
            let is_masked = earlier.into_iter().chain(later).any(|setting| setting.is_masked);
            let values =
                if is_masked { ChangedValues::Masked } else { ChangedValues::Shown(value(earlier), value(later)) };
            changes.push(Change { path: path.clone(), values });
        }
        changes.sort_by(|one, other| one.path.cmp(&other.path));
        let files = self.files.changed_since(&older.files);
        changes.extend(
            files.map(|path| Change { path: format!("file {}", path.display()), values: ChangedValues::Masked }),
        );
        Changes(changes)
    }
}

/// Collects all settings of a table by their paths.
fn collect<'a>(prefix: &str, table: &'a Table, schema: &Json, settings: &mut SettingsByPath<'a>) {
    for (name, value) in table {
        let path = format!("{prefix}{name}");
        let schema = &schema["properties"][name];
        let is_masked = schema["writeOnly"] == true;
        match value {
            Value::Table(table) if !is_masked => collect(&format!("{path}."), table, schema, settings),
            Value::Array(items) if items.first().is_some_and(Value::is_table) => {
                let mut occurrences: BTreeMap<&str, usize> = BTreeMap::new();
                for table in items.iter().filter_map(Value::as_table) {
                    let identity = IDENTITIES.iter().find_map(|key| table.get(*key)?.as_str()).unwrap_or_default();
                    let occurrence = occurrences.entry(identity).and_modify(|count| *count += 1).or_insert(1);
                    let suffix = if *occurrence == 1 { String::new() } else { format!("#{occurrence}") };
                    collect(&format!("{path}.{identity}{suffix}."), table, &schema["items"], settings);
                }
            }
            value => drop(settings.insert(path, Setting { value, is_masked })),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.values {
            ChangedValues::Masked => write!(f, "{}: changed", self.path),
            ChangedValues::Shown(earlier, later) => {
                let text = |value: &Option<Value>| value.as_ref().map_or("(left out)".to_owned(), Value::to_string);
                write!(f, "{}: {} -> {}", self.path, text(earlier), text(later))
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, Environment};

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
    fn a_change_shows_its_path_and_values_unless_it_is_secret() {
        let before = config(
            "[server]\ndrain_timeout = \"30s\"\n[cache.stale]\nif_error = \"1h\"",
            &(tenant("a", "KEY", '1', "\"*\"") + &tenant("b", "KEY", '2', "\"x\"")),
        );
        // The order of tables does not matter.
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
