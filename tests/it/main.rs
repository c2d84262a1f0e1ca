//! Integration tests: the gateway over real sockets, in front of the simulated Refold or of upstreams that misbehave.

mod access_log;
mod browser;
mod caching;
mod callers;
mod coalescing;
mod command_line;
mod connections;
mod documentation;
mod encryption;
mod harness;
mod identities;
mod isolation;
mod issuer;
mod limits;
mod metrics;
mod pass_through;
mod rotation;
mod secrecy;
mod spellings;
mod staleness;
mod tokens;
mod traces;
mod upstream_failures;
mod webhooks;
