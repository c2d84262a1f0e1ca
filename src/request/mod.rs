//! The parts of a request: its route, the header fields that the gateway reads, CORS, and its id.

pub mod authority;
pub mod body;
pub mod cors;
pub mod headers;
mod id;
pub mod method;
pub mod other_account;
pub mod peer;
pub mod route;

pub use self::id::RequestId;
