//! The client error.
