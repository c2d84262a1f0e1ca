//! The response cache: keys, entries, their lifetimes and encodings, the store, and request collapsing.

mod collapse;
mod directives;
mod encoder;
mod encoding;
mod entry;
mod footprint;
mod freshness;
mod key;
mod outcome;
mod store;

pub use collapse::{CollapseKey, Demand, Follower, Group, Leader, Participation, Role};
pub use directives::{Acceptance, Directives};
pub use encoder::Encoder;
pub use encoding::{Coding, EncodedBodies, EncodedBody};
pub use entry::{Entry, RenewalClaim, Servable};
pub use freshness::FreshnessClass;
pub use key::CacheKey;
pub use outcome::CacheOutcome;
pub use store::{CutOff, Store, Usage};
