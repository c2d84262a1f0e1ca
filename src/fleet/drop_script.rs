//! The script that drops entries, and its answer.

use std::time::Duration;

use redis::{FromRedisValue, Value};

use super::commands::Call;
use super::log::{DroppedEntries, LogPosition};
use super::names::Names;
use super::script::DROP;

/// Time for which the server keeps a generation that no replica asks for; longer than any entry.
pub(super) const GENERATION_KEPT: Duration = Duration::from_hours(2);

/// Generations are below this: a larger one was not written by a replica.
pub(super) const NO_GENERATION: u64 = 1 << 52;

/// The call that drops entries, and gives them a generation above a number, which is 0 unless a later one than the server's was seen.
pub(super) fn drop_call(names: &Names, dropped: &DroppedEntries, above: u64) -> Call {
    let DroppedEntries { tenant, partition } = dropped;
    let generation = names.of("g", partition.as_ref().unwrap_or(tenant));
    let keys = [generation, names.single("log")];
    let kept = GENERATION_KEPT.as_secs();
    Call::new(&DROP, &keys[..], (&**tenant, partition.as_deref().unwrap_or("*"), kept, above))
}

/// The position of a drop in the log, by the answer to its script.
pub(super) fn position(answer: Value) -> Option<LogPosition> {
    LogPosition::parse(&Vec::<u8>::from_redis_value(answer).ok()?)
}
