//! Answers that were given before: whose they are (`key`), what they are (`entry`), how long they hold (`freshness`), where
//! they are (`store`), and how many callers share one fetch (`coalesce`).

mod coalesce;
mod directives;
mod encoding;
mod entry;
mod freshness;
mod key;
mod store;

pub use coalesce::{Flight, FlightKey, Flights, Interest, Joined, Waiter};
pub use directives::Directives;
pub use encoding::{Coded, Coding, Codings};
pub use entry::{Entry, Usable};
pub use freshness::Class;
pub use key::CacheKey;
pub use store::{Store, Usage};
