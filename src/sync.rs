//! The locks, atomics and threads of the modules whose interleavings are checked.
//!
//! Here they are those of the standard library and of tokio, at no cost. `interleavings/` compiles the files of those modules with a
//! `sync` of its own, in which a scheduler decides which thread goes on at each operation.

pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError, atomic, mpsc};
pub(crate) use std::thread;
pub(crate) use tokio::sync::{Notify, watch};
