//! The scripts of the upstream budget. Their heads say what they take and return.

use super::script::Script;

/// Asks for one request of a flow.
pub static TURN: Script = Script::new("turn", include_str!("scripts/turn.lua"));
/// Holds all requests of an org after an upstream 429.
pub static HOLD: Script = Script::new("hold", include_str!("scripts/hold.lua"));
/// Gives a place in the queue, or a granted request, back.
pub static GIVE_BACK: Script = Script::new("give_back", include_str!("scripts/give_back.lua"));
/// Deletes the state of orgs that are not used any more.
pub static FORGET: Script = Script::new("forget", include_str!("scripts/forget.lua"));
