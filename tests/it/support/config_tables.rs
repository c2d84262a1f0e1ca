//! The repeated tables of a configuration: listeners, tenants with their client keys, issuers.

use std::net::SocketAddr;
use std::path::Path;

use postern::digest::{Hex, sha256};
use toml::value::Datetime;
use toml::{Table, Value};

use super::Folder;
use super::tokens::{AUDIENCE, ISSUER};

/// Sets one setting by its dotted name; tables on the way are created.
pub(super) fn set(table: &mut Table, setting: &str, value: Value) {
    match setting.split_once('.') {
        None => drop(table.insert(setting.to_owned(), value)),
        Some((name, rest)) => {
            let inner = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
            set(inner.as_table_mut().expect("a table"), rest, value);
        }
    }
}

/// Leaves one setting out, by its dotted name.
pub(super) fn without(table: &mut Table, setting: &str) {
    match setting.split_once('.') {
        None => drop(table.remove(setting)),
        Some((name, rest)) => without(table[name].as_table_mut().expect("a table"), rest),
    }
}

/// Adds the settings of another table, also within tables that both have.
pub(super) fn merge(table: &mut Table, other: Table) {
    for (name, value) in other {
        match (table.get_mut(&name), value) {
            (Some(Value::Table(inner)), Value::Table(other)) => merge(inner, other),
            (_, value) => drop(table.insert(name, value)),
        }
    }
}

/// A secret that comes from an environment variable.
pub(super) fn environment(name: &str) -> Value {
    single("env", name)
}

fn single(name: &str, value: &str) -> Value {
    Value::Table(Table::from_iter([(name.to_owned(), value.into())]))
}

fn texts(texts: &[&str]) -> Value {
    texts.iter().copied().map(Value::from).collect::<Vec<_>>().into()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

macro_rules! tables {
    ($($name:ident)+) => {$(
        impl $name {
            /// Sets one setting by its dotted name.
            pub(crate) fn set(mut self, setting: &str, value: impl Into<Value>) -> Self {
                set(&mut self.0, setting, value.into());
                self
            }

        }
    )+};
}

/// For the tables that a test changes after they have been set.
macro_rules! changeable_tables {
    ($($name:ident)+) => {$(
        impl $name {
            /// Leaves one setting out.
            pub(crate) fn without(mut self, setting: &str) -> Self {
                without(&mut self.0, setting);
                self
            }

            pub(super) fn table(&self) -> Table {
                self.0.clone()
            }
        }
    )+};
}

tables! { Listener Tenant ClientKey Issuer }
changeable_tables! { Listener Tenant Issuer }

/// A `[[listeners]]` table.
#[derive(Clone, Debug)]
pub(crate) struct Listener(Table);

impl Listener {
    /// A listener on a free port of the loopback address.
    pub(crate) fn new() -> Self {
        Self::at("127.0.0.1:0")
    }

    pub(crate) fn at(address: &str) -> Self {
        Self(Table::new()).set("address", address)
    }

    pub(crate) fn unix(path: &Path) -> Self {
        Self::at(&format!("unix:{}", path.display()))
    }

    pub(crate) fn address(self, address: &str) -> Self {
        self.set("address", address)
    }

    pub(crate) fn session_tokens(self, tenant: &str) -> Self {
        self.set("session_tokens", tenant)
    }

    pub(crate) fn no_session_tokens(self) -> Self {
        self.without("session_tokens")
    }

    /// Trusts every caller as one of the tenant `t`, and takes no session tokens.
    pub(crate) fn trusted(self) -> Self {
        self.no_session_tokens().set("trusted.tenant", "t")
    }

    /// [`Listener::trusted`], for some linked accounts only.
    pub(crate) fn trusted_for(self, linked_accounts: &[&str]) -> Self {
        self.trusted().set("trusted.linked_accounts", texts(linked_accounts))
    }

    /// Encrypts with the certificate in a folder, and takes no session tokens.
    pub(crate) fn tls(self, folder: &Folder) -> Self {
        let encrypted = self.no_session_tokens().set("tls.certificate", text(&folder.join("server.pem")));
        encrypted.set("tls.key", text(&folder.join("server.key")))
    }

    /// Takes client certificates of the authorities in a file.
    pub(crate) fn client_ca(self, authorities: &Path) -> Self {
        self.set("tls.client_ca", text(authorities))
    }

    pub(crate) fn client_certificate_required(self) -> Self {
        self.set("tls.client_certificate", "required")
    }

    pub(crate) fn socket_mode(self, mode: &str) -> Self {
        self.set("socket.mode", mode)
    }
}

/// A `[[tenants]]` table.
#[derive(Clone, Debug)]
pub(crate) struct Tenant(Table);

impl Tenant {
    /// A tenant in mode `inject` with [`super::ORG_KEY`] and no client key.
    pub(crate) fn new(id: &str) -> Self {
        Self(Table::new()).set("id", id).mode("inject").org_key("ORG_KEY")
    }

    pub(crate) fn mode(self, mode: &str) -> Self {
        self.set("mode", mode)
    }

    /// Takes the org key from an environment variable.
    pub(crate) fn org_key(self, variable: &str) -> Self {
        self.set("org_key", environment(variable))
    }

    pub(crate) fn org_key_file(self, path: &Path) -> Self {
        self.set("org_key", single("file", text(path)))
    }

    pub(crate) fn org_key_next(self, variable: &str) -> Self {
        self.set("org_key_next", environment(variable))
    }

    pub(crate) fn request_directives(self, directives: &[&str]) -> Self {
        self.set("request_directives", texts(directives))
    }

    pub(crate) fn webhooks(self) -> Self {
        self.set("webhooks", true)
    }

    /// Replaces the client keys.
    pub(crate) fn client_keys(self, keys: impl IntoIterator<Item = ClientKey>) -> Self {
        self.set("client_keys", keys.into_iter().map(|key| key.0).collect::<Vec<_>>())
    }

    /// Adds a client key.
    pub(crate) fn client_key(mut self, key: ClientKey) -> Self {
        let keys = self.0.entry("client_keys").or_insert_with(|| Value::Array(Vec::new()));
        keys.as_array_mut().expect("an array").push(Value::Table(key.0));
        self
    }

    /// Replaces the client certificates by the one that `tests/data/client-app.pem` is.
    pub(crate) fn client_certificate(self, linked_accounts: &[&str]) -> Self {
        let certificate = Table::from_iter([
            ("name".to_owned(), "dashboard".into()),
            ("san".to_owned(), "spiffe://cluster.local/ns/app/sa/dashboard".into()),
            ("linked_accounts".to_owned(), texts(linked_accounts)),
        ]);
        self.set("client_certificates", vec![certificate])
    }
}

/// A `[[tenants.client_keys]]` table.
#[derive(Clone, Debug)]
pub(crate) struct ClientKey(Table);

impl ClientKey {
    /// A key that reads every linked account.
    pub(crate) fn new(name: &str, key: &str) -> Self {
        let digest = Hex(&sha256(key.as_bytes())).to_string();
        Self(Table::new()).set("name", name).set("sha256", digest).accounts(&["*"])
    }

    pub(crate) fn accounts(self, linked_accounts: &[&str]) -> Self {
        self.set("linked_accounts", texts(linked_accounts))
    }

    /// Allows to stop and to rerun executions.
    pub(crate) fn write(self) -> Self {
        self.set("access", "read+write")
    }

    pub(crate) fn limit(self, per_second: u32, burst: u32) -> Self {
        self.set("per_second", per_second).set("burst", burst)
    }

    pub(crate) fn expires(self, time: &str) -> Self {
        self.set("expires", time.parse::<Datetime>().expect("a time"))
    }
}

/// An `[[issuers]]` table.
#[derive(Clone, Debug)]
pub(crate) struct Issuer(Table);

impl Issuer {
    fn new(source: &str, value: impl Into<Value>) -> Self {
        let issuer = Self(Table::new()).set("issuer", ISSUER).audience(AUDIENCE).set("tenant", "t");
        issuer.set("write_scope", "executions:write").set(&format!("keys.{source}"), value)
    }

    /// An issuer that signs with [`super::JWT_SECRET`].
    pub(crate) fn with_secret() -> Self {
        Self::new("secret", environment("JWT_SECRET"))
    }

    /// An issuer whose keys are in a PEM or JWKS file.
    pub(crate) fn with_file(path: &Path) -> Self {
        Self::new("file", text(path))
    }

    /// An issuer whose JWKS document a server has.
    pub(crate) fn with_server(address: SocketAddr) -> Self {
        Self::new("url", format!("http://{address}/jwks.json")).set("keys.cooldown", "10s")
    }

    pub(crate) fn audience(self, audience: &str) -> Self {
        self.set("audience", texts(&[audience]))
    }
}
