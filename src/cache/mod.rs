//! Answers that were given before: whose they are (`key`), what they are (`entry`), how long they hold (`freshness`), where
//! they are (`store`), and how many callers share one fetch (`coalesce`).

mod collapse;
mod directives;
mod encoding;
mod entry;
mod freshness;
mod key;
mod outcome;
mod store;

pub use collapse::{CollapseKey, Demand, Follower, Group, Joined, Leader};
pub use directives::Directives;
pub use encoding::{Coded, Coding, Codings};
pub use entry::{Entry, RenewalClaim, Servable};
pub use freshness::Class;
pub use key::CacheKey;
pub use outcome::CacheOutcome;
pub use store::{Store, Usage};
