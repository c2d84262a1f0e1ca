//! The embedded simulated Refold.
