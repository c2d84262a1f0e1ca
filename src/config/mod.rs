//! File and environment to a validated [`Config`]: the only place that reads either.

mod model;
mod secret;

pub use model::*;
pub use secret::Secret;
