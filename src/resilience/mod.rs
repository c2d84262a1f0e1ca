//! What keeps an upstream that fails from being asked in vain: a circuit breaker, and retries within a budget of their own.

mod breaker;
mod retry;

pub use breaker::{Breaker, Circuit, Failure, Open, Permit};
pub use retry::{RetryBudget, backoff};
