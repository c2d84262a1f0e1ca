//! Integration tests: the gateway over real sockets, in front of the simulated Refold or of upstreams that misbehave. One file
//! has one subject; the subjects share [`support`] and nothing else.

#![expect(clippy::disallowed_methods, reason = "real sockets take real time and threads")]

mod access_log;
mod admin;
mod browser;
mod browser_status_page;
mod caching;
mod callers;
mod circuit;
mod coalescing;
mod command_line;
mod connections;
mod deploy;
mod derivation;
mod directives;
mod documentation;
mod drain;
mod drain_connections;
mod encryption;
mod eviction;
mod fairness;
mod forged_tokens;
mod frame_floods;
mod identities;
mod isolation;
mod issuer_keys;
mod limits;
mod metrics;
mod org_key_checks;
mod pass_through;
mod pass_through_responses;
mod pass_through_scope;
mod pass_through_timeouts;
mod questions;
mod reach;
mod reload;
mod reload_listeners;
mod restart;
mod rotation;
mod secrecy;
mod shared_budgets;
mod simulator;
mod spellings;
mod staleness;
mod strangers;
mod support;
mod token_validity;
mod tokens;
mod traces;
mod upstream_answers;
mod upstream_connections;
mod upstream_failures;
mod webhooks;
