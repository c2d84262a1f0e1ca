//! The tools that the subjects share: worlds, configurations, upstreams, clients, processes.
//!
//! A subject imports from here and from no other subject.

pub(crate) mod cable;
pub(crate) mod chromium;
pub(crate) mod collector;
pub(crate) mod connection;
pub(crate) mod counted;
pub(crate) mod frames;
pub(crate) mod leaks;
pub(crate) mod program;
pub(crate) mod redis_server;
pub(crate) mod replicas;
pub(crate) mod rogue;
pub(crate) mod samples;
pub(crate) mod tls;
pub(crate) mod tokens;

mod answer;
mod client;
mod command;
mod config;
mod config_tables;
mod folder;
mod gateway;
mod prepared;
mod process;
mod random;
mod scripted;
mod until;
mod upstream;
mod world;

use postern::digest::Hex;

pub(crate) use self::answer::{Answer, PendingAnswer};
pub(crate) use self::client::{Client, Failure};
pub(crate) use self::command::{
    Postern, Printing, activated_command, command, limited_command, postern, run_script, run_to_end,
};
pub(crate) use self::config::{Configuration, refusal};
pub(crate) use self::config_tables::{ClientKey, Issuer, Listener, Tenant};
pub(crate) use self::folder::Folder;
pub(crate) use self::gateway::{Gateway, Waiting};
pub(crate) use self::prepared::PreparedRefold;
pub(crate) use self::process::{Port, Process, Running};
pub(crate) use self::random::{Dice, seeded};
pub(crate) use self::scripted::ScriptedRefold;
pub(crate) use self::until::{eventually, pass, until, within};
pub(crate) use self::upstream::{EMPTY_PAGE, http_upstream, page_of, read_head, spawn_upstream};
pub(crate) use self::world::{Upstream, World, WorldBuilder, manual_clock};

/// The org key of the simulated Refold; no client ever sees it.
pub(crate) const ORG_KEY: &str = "tk_org_key_that_no_client_sees_93d1";
/// The org key that follows it in a rotation.
pub(crate) const NEXT_ORG_KEY: &str = "tk_next_org_key_that_no_client_sees_5c0e";
/// The org key of another org.
pub(crate) const OTHER_ORG_KEY: &str = "tk_other_org";
/// A client key that reads and writes every linked account.
pub(crate) const KEY: &str = "pst_all_accounts";
/// The secret that an issuer signs with.
pub(crate) const JWT_SECRET: &str = "a-secret-of-at-least-thirty-two-bytes-0001";
/// The token of the admin listener, where one is configured.
pub(crate) const ADMIN_TOKEN: &str = "an-admin-token-that-no-client-sees-7a11";
/// The secret that the replicas of a fleet share.
pub(crate) const FLEET_SECRET: &str = "a-fleet-secret-of-at-least-thirty-two-bytes";
/// The password of a Redis server, where it has one.
pub(crate) const REDIS_PASSWORD: &str = "a-redis-password-that-nothing-shows-44ab";
/// The collection of executions.
pub(crate) const EXECUTIONS: &str = "/api/v2/public/execution";
/// The environment variables that hold the secrets, with their values.
pub(crate) const ENVIRONMENT: [(&str, &str); 7] = [
    ("ORG_KEY", ORG_KEY),
    ("NEXT_ORG_KEY", NEXT_ORG_KEY),
    ("OTHER_ORG_KEY", OTHER_ORG_KEY),
    ("JWT_SECRET", JWT_SECRET),
    ("ADMIN_TOKEN", ADMIN_TOKEN),
    ("FLEET_SECRET", FLEET_SECRET),
    ("REDIS_PASSWORD", REDIS_PASSWORD),
];

/// The headers of a caller of a linked account with [`KEY`].
pub(crate) fn as_account(linked_account: &str) -> [(&'static str, &str); 2] {
    [("x-api-key", KEY), ("linked_account_id", linked_account)]
}

/// [`as_account`] with a `Cache-Control` directive.
pub(crate) fn with_directive<'a>(linked_account: &'a str, directive: &'a str) -> [(&'static str, &'a str); 3] {
    [("x-api-key", KEY), ("linked_account_id", linked_account), ("cache-control", directive)]
}

/// The signature of a webhook's body, by the org key that Refold signs with.
pub(crate) fn signature(key: &str, body: &str) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key.as_bytes());
    Hex(aws_lc_rs::hmac::sign(&key, body.as_bytes()).as_ref()).to_string()
}
