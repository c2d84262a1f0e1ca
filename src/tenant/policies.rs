//! The values of `RateLimit-Policy` for a tenant's callers. They are made when the tenant begins to serve, so that a response only
//! copies one.

use http::HeaderValue;

use super::partition::Partition;
use crate::config::Rate;
use crate::limit::{Policy, policy_list};

/// The policies of a tenant's callers.
#[derive(Debug)]
pub struct Policies {
    client: Rate,
    upstream: Rate,
    account: HeaderValue,
    token: HeaderValue,
}

impl Policies {
    /// The policies with these rates, of a linked account or session token and of the org key.
    pub(super) fn new(client: Rate, upstream: Rate) -> Self {
        let list = |own| policy_list(&[(own, client), (Policy::Upstream, upstream)]);
        Self { client, upstream, account: list(Policy::Account), token: list(Policy::Token) }
    }

    /// `RateLimit-Policy` for requests that act for a partition, with a credential that has no budget of its own.
    #[must_use]
    pub fn of_partition(&self, partition: &Partition) -> &HeaderValue {
        match partition.policy() {
            Policy::Token => &self.token,
            _ => &self.account,
        }
    }

    /// `RateLimit-Policy` for a client key with a budget of its own.
    #[must_use]
    pub fn of_key(&self, key: Rate) -> HeaderValue {
        policy_list(&[(Policy::Account, self.client), (Policy::Key, key), (Policy::Upstream, self.upstream)])
    }
}
