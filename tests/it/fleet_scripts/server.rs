//! The scripts on a real server, at a time that the test passes in.

use std::collections::BTreeMap;

use redis::{Connection, FromRedisValue, Script, cmd};

use super::model::{Budget, FORGET, Flow, LEASE, Limits, Model, SERVER, Turn, Verdict};
use super::sorted_set::SortedSet;
use crate::support::redis_server::RedisServer;

const STATE: &str = "up:org";
const QUEUE: &str = "q:org";
const EXPECTED: &str = "seen:org";
const ROUNDS: &str = "rounds:org";
const OLDEST: &str = "oldest:org";
const MEMBERS: &str = "m";
const GAP: &str = "gap";
const ORGS: &str = "orgs";
const ORG: &str = "org";

/// A server with the product's scripts, which take the time from their last two arguments.
pub(super) struct Scripts {
    _server: RedisServer,
    connection: Connection,
    beat: Script,
    leave: Script,
    turn: Script,
    hold: Script,
    give_back: Script,
    forget: Script,
}

pub(super) fn at_given_time(source: &str) -> Script {
    const TIME: &str = "redis.call('TIME')";
    assert_eq!(source.matches(TIME).count(), 1, "a script reads the clock once");
    Script::new(&source.replace(TIME, "{ARGV[#ARGV - 1], ARGV[#ARGV]}"))
}

impl Scripts {
    /// Starts a server; `None` if the test is skipped.
    pub(super) async fn start() -> Option<Self> {
        let server = RedisServer::start().await?;
        let connection = redis::Client::open(server.url()).and_then(|client| client.get_connection());
        let connection = connection.expect("the server listens");
        Some(Self {
            _server: server,
            connection,
            beat: at_given_time(include_str!("../../../src/fleet/scripts/beat.lua")),
            leave: Script::new(include_str!("../../../src/fleet/scripts/leave.lua")),
            turn: at_given_time(include_str!("../../../src/fleet/scripts/turn.lua")),
            hold: at_given_time(include_str!("../../../src/fleet/scripts/hold.lua")),
            give_back: at_given_time(include_str!("../../../src/fleet/scripts/give_back.lua")),
            forget: at_given_time(include_str!("../../../src/fleet/scripts/forget.lua")),
        })
    }

    pub(super) fn flush(&mut self) {
        cmd("FLUSHALL").exec(&mut self.connection).expect("the server answers");
    }

    pub(super) fn delete(&mut self, key: &str) {
        cmd("DEL").arg(key).exec(&mut self.connection).expect("the server answers");
    }

    /// Returns the numbers of known and live members.
    pub(super) fn beat(&mut self, now: f64, replica: &str) -> (usize, usize) {
        let (members, _) = self.beat_with(now, replica, None, false);
        members
    }

    /// A beat of a replica that has seen that the server's clock was set.
    pub(super) fn tell_of_a_set_clock(&mut self, now: f64, replica: &str) {
        self.beat_with(now, replica, None, true);
    }

    /// A beat of a replica that believes to have this rank; returns the rank that it has.
    pub(super) fn rank(&mut self, now: f64, replica: &str, rank: Option<u32>) -> Option<u32> {
        let (_, rank) = self.beat_with(now, replica, rank, false);
        rank
    }

    fn beat_with(
        &mut self,
        now: f64,
        replica: &str,
        rank: Option<u32>,
        clock_was_set: bool,
    ) -> ((usize, usize), Option<u32>) {
        let rank = rank.map_or(-1, i64::from);
        let epoch = format!("{replica}-{}", us(now));
        let (_, _, _, _, known, live, rank): (String, String, String, String, usize, usize, i64) = call(
            &mut self.connection,
            now,
            &self.beat,
            &[MEMBERS, "log", "epoch", GAP, "ret", "ranks", "names"],
            &[
                replica.to_owned(),
                us(LEASE),
                us(FORGET),
                us(now),
                us(200e3),
                epoch,
                rank.to_string(),
                u8::from(clock_was_set).to_string(),
                "names-1".to_owned(),
            ],
        );
        ((known, live), u32::try_from(rank).ok())
    }

    /// Gives a rank to a replica that is no member.
    pub(super) fn give_rank(&mut self, replica: &str, rank: u32) {
        cmd("ZADD").arg("ranks").arg(rank).arg(replica).exec(&mut self.connection).expect("the server answers");
    }

    /// Ends the lease of a replica that leaves.
    pub(super) fn leave(&mut self, replica: &str) {
        let mut call = self.leave.prepare_invoke();
        let _: redis::Value =
            call.key(&[MEMBERS, "ranks"]).arg(replica).invoke(&mut self.connection).expect("the script runs");
    }

    pub(super) fn turn(&mut self, now: f64, flow: Flow, last_known: f64, limits: Limits) -> Turn {
        self.turn_sent_at((now, now), flow, last_known, limits)
    }

    /// Asks by a call that was sent at a time of the server's clock, as its caller reckons.
    pub(super) fn turn_sent_at(
        &mut self,
        (now, sent): (f64, f64),
        flow: Flow,
        last_known: f64,
        limits: Limits,
    ) -> Turn {
        let arguments = [
            us(limits.interval),
            us(limits.tolerance),
            flow.urgency().to_owned(),
            flow.credential.to_string(),
            flow.account.to_string(),
            us(limits.longest_wait),
            ORG.to_owned(),
            us(last_known),
            us(limits.replicas),
            us(LEASE),
            SERVER.to_string(),
            us(sent),
            us(flow.renews),
        ];
        let keys = [STATE, QUEUE, EXPECTED, ROUNDS, MEMBERS, GAP, ORGS, OLDEST];
        let (verdict, wait, now, held_for, pace, expected, arrival): (String, f64, f64, f64, f64, f64, f64) =
            call(&mut self.connection, now, &self.turn, &keys, &arguments);
        let verdict = match verdict.as_str() {
            "go" => Verdict::Go,
            "wait" => Verdict::Wait,
            "later" => Verdict::Later,
            "late" => Verdict::Late,
            other => panic!("{other} is no verdict"),
        };
        Turn { verdict, wait, now, held_for, pace, expected, arrival }
    }

    pub(super) fn hold(&mut self, now: f64, pause: f64, limits: Limits) -> (f64, f64) {
        let tolerance = limits.tolerance * limits.interval;
        let arguments = [us(pause), us(tolerance), ORG.to_owned()];
        call(&mut self.connection, now, &self.hold, &[STATE, ORGS], &arguments)
    }

    pub(super) fn give_back(
        &mut self,
        now: f64,
        flow: Flow,
        expected: f64,
        granted: Option<f64>,
        interval: f64,
    ) -> (bool, bool) {
        let arguments = [
            flow.urgency().to_owned(),
            flow.credential.to_string(),
            flow.account.to_string(),
            us(expected),
            us(granted.map_or(0.0, |_| interval)),
            us(granted.unwrap_or(0.0)),
        ];
        call(&mut self.connection, now, &self.give_back, &[STATE, QUEUE, EXPECTED, ROUNDS, OLDEST], &arguments)
    }

    pub(super) fn forget(&mut self, now: f64, idle: f64) -> usize {
        call(&mut self.connection, now, &self.forget, &[ORGS, "up:", "q:", "seen:", "rounds:", "oldest:"], &[us(idle)])
    }

    /// Reads all keys.
    pub(super) fn state(&mut self) -> Model {
        let fields = ["tat", "held", "pace", "born", "seq", "at", "gap"];
        let values: Vec<Option<String>> =
            cmd("HMGET").arg(STATE).arg(&fields).query(&mut self.connection).expect("numbers");
        let number = |field: usize| values[field].as_ref().map(|number| number.parse().expect("a number"));
        let budget = number(0).map(|arrival| Budget {
            arrival,
            held: number(1).expect("a time"),
            pace: number(2).expect("a factor"),
            born: number(3),
            sequence: number(4),
            at: number(5).expect("a time"),
            gap: values[6].clone(),
        });
        Model {
            budget,
            queue: self.sorted_set(QUEUE),
            expected: self.sorted_set(EXPECTED),
            rounds: self.sorted_set(ROUNDS),
            oldest: self.oldest(),
            members: self.sorted_set(MEMBERS),
            gap: cmd("GET").arg(GAP).query(&mut self.connection).expect("a number"),
            called: cmd("ZSCORE").arg(ORGS).arg(ORG).query(&mut self.connection).expect("a number"),
        }
    }

    fn oldest(&mut self) -> BTreeMap<String, (f64, f64)> {
        let fields: BTreeMap<String, String> = cmd("HGETALL").arg(OLDEST).query(&mut self.connection).expect("a hash");
        let number = |text: &str| text.parse().expect("a number");
        let numbers = |text: String| text.split_once(' ').map(|(one, other)| (number(one), number(other)));
        fields.into_iter().map(|(flow, text)| (flow, numbers(text).expect("two numbers"))).collect()
    }

    fn sorted_set(&mut self, key: &str) -> SortedSet {
        let command = cmd("ZRANGE").arg(key).arg(0).arg(-1).arg("WITHSCORES").query(&mut self.connection);
        let entries: Vec<(String, f64)> = command.expect("members with scores");
        let mut set = SortedSet::default();
        for (member, score) in &entries {
            set.add(member, *score);
        }
        set
    }
}

pub(super) fn call<T: FromRedisValue>(
    connection: &mut Connection,
    now: f64,
    script: &Script,
    keys: &[&str],
    arguments: &[String],
) -> T {
    let mut call = script.prepare_invoke();
    call.key(keys).arg(arguments);
    call.arg(us((now / 1e6).floor())).arg(us(now % 1e6));
    call.invoke(connection).expect("the script runs")
}

/// Whole microseconds, or another whole number.
fn us(number: f64) -> String {
    format!("{number:.0}")
}
