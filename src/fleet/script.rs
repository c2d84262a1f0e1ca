//! The scripts that run inside of Redis, each of which is atomic.

use std::fmt;
use std::sync::OnceLock;

/// A Lua script of Postern's own. Declared as a `static`, so that a command refers to it.
pub struct Script {
    name: &'static str,
    source: &'static str,
    hashed: OnceLock<redis::Script>,
}

/// All scripts; each is loaded when a connection begins.
pub(super) static SCRIPTS: [&Script; 15] = [
    &READY, &BEAT, &LEAVE, &TURN, &HOLD, &GIVE_BACK, &FORGET, &DROP, &ACK, &UNAWARE, &TAKE, &PUT, &EXTEND, &LAND,
    &REFILL,
];

/// Finds out whether the server takes writes.
pub(super) static READY: Script = Script::new("ready", include_str!("scripts/ready.lua"));
/// Renews a replica's lease.
pub(super) static BEAT: Script = Script::new("beat", include_str!("scripts/beat.lua"));
/// Ends a replica's lease.
pub(super) static LEAVE: Script = Script::new("leave", include_str!("scripts/leave.lua"));
/// Asks for one upstream request of a flow.
pub static TURN: Script = Script::new("turn", include_str!("scripts/turn.lua"));
/// Holds all requests of an org after an upstream 429.
pub static HOLD: Script = Script::new("hold", include_str!("scripts/hold.lua"));
/// Gives a place in the queue, or a granted request, back.
pub static GIVE_BACK: Script = Script::new("give_back", include_str!("scripts/give_back.lua"));
/// Deletes the state of orgs that no replica has asked about for long.
pub static FORGET: Script = Script::new("forget", include_str!("scripts/forget.lua"));
/// Drops the entries of a partition or a tenant.
pub(super) static DROP: Script = Script::new("drop", include_str!("scripts/drop.lua"));
/// Records how far a replica has read the log.
pub(super) static ACK: Script = Script::new("ack", include_str!("scripts/ack.lua"));
/// Counts the replicas that have not read the log up to a position.
pub(super) static UNAWARE: Script = Script::new("unaware", include_str!("scripts/unaware.lua"));
/// Finds an entry, or makes one replica fetch it.
pub(super) static TAKE: Script = Script::new("take", include_str!("scripts/take.lua"));
/// Stores an entry.
pub(super) static PUT: Script = Script::new("put", include_str!("scripts/put.lua"));
/// Extends the lease of a fetch.
pub(super) static EXTEND: Script = Script::new("extend", include_str!("scripts/extend.lua"));
/// Ends a fetch.
pub(super) static LAND: Script = Script::new("land", include_str!("scripts/land.lua"));
/// Grants requests of client budgets.
pub static REFILL: Script = Script::new("refill", include_str!("scripts/refill.lua"));

impl Script {
    /// Makes a script of its name, for logs and metrics, and its source.
    #[must_use]
    pub const fn new(name: &'static str, source: &'static str) -> Self {
        Self { name, source, hashed: OnceLock::new() }
    }

    /// The name, for logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn source(&self) -> &'static str {
        self.source
    }

    /// The script with its SHA-1, by which it is called.
    pub(super) fn hashed(&self) -> &redis::Script {
        self.hashed.get_or_init(|| redis::Script::new(self.source))
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Script").field(&self.name).finish()
    }
}
