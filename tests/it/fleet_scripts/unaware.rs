//! The script that counts the replicas that do not know of a drop, on a real server at a time that the test passes in.

use redis::{Connection, Script, cmd};

use super::server::{at_given_time, call};
use crate::support::redis_server::RedisServer;

const START: f64 = 1_700_000_000e6;
const SECOND: f64 = 1e6;
const POSITION: &str = "1700000000000-0";
/// The replicas that the asking one knows to be alive.
const LIVE: u32 = 2;

struct Members {
    _server: RedisServer,
    connection: Connection,
    script: Script,
}

impl Members {
    /// Two members that have read the log up to a drop, long after the last gap between beats.
    async fn aware() -> Option<Self> {
        let server = RedisServer::start().await?;
        let connection = redis::Client::open(server.url()).and_then(|client| client.get_connection());
        let connection = connection.expect("the server listens");
        let script = at_given_time(include_str!("../../../src/fleet/scripts/unaware.lua"));
        let mut members = Self { _server: server, connection, script };
        members.run(&["XADD", "log", POSITION, "dropped", "*"]);
        members.run(&["ZADD", "m", &(START + SECOND).to_string(), "one", &(START + SECOND).to_string(), "other"]);
        members.run(&["HSET", "read", "one", POSITION, "other", "1700000000001-5"]);
        members.run(&["SET", "gap", &(START - SECOND).to_string()]);
        Some(members)
    }

    fn run(&mut self, command: &[&str]) {
        cmd(command[0]).arg(&command[1..]).exec(&mut self.connection).expect("the server answers");
    }

    fn unaware(&mut self, now: f64) -> i64 {
        let arguments = ["1700000000000", "0", &LIVE.to_string(), "305000"].map(str::to_owned);
        call(&mut self.connection, now, &self.script, &["read", "m", "log", "gap"], &arguments)
    }
}

#[tokio::test]
async fn members_that_have_read_the_log_are_aware_of_a_drop() {
    let Some(mut members) = Members::aware().await else { return };
    assert_eq!(members.unaware(START), 0);
    members.run(&["HSET", "read", "other", "1699999999999-7"]);
    assert_eq!(members.unaware(START), 1);
    members.run(&["HDEL", "read", "other"]);
    assert_eq!(members.unaware(START), 1);
    members.run(&["HSET", "read", "other", "somewhere"]);
    assert_eq!(members.unaware(START), 1, "what is no position was set by someone else");
}

#[tokio::test]
async fn it_is_unknown_who_is_aware_if_members_or_the_drop_are_lost() {
    let at = |time: f64| format!("{time:.0}");
    let (before, after, long_ago) = (at(START - 300_000.0), at(START + 1.0), at(START - 305_001.0));
    let losses: [(&[&str], i64); 8] = [
        (&["DEL", "m"], -1),
        (&["ZREM", "m", "other"], -1),
        (&["DEL", "log"], -1),
        (&["DEL", "gap"], -1),
        (&["SET", "gap", "yesterday"], -1),
        (&["SET", "gap", &before], -1),
        (&["SET", "gap", &after], -1),
        (&["SET", "gap", &long_ago], 0),
    ];
    for (loss, expected) in losses {
        let Some(mut members) = Members::aware().await else { return };
        members.run(loss);
        assert_eq!(members.unaware(START), expected, "{loss:?}");
    }
    let Some(mut members) = Members::aware().await else { return };
    assert_eq!(members.unaware(START + 2.0 * SECOND), -1, "the clock was set forward, and all leases have ended");
}
