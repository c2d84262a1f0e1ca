//! The script on a real server, at a time that the test passes in: random calls in any order, with lost keys and a clock that
//! jumps. It does what the model does.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redis::{Connection, Script, cmd};

use super::model::{Answer, FORGOTTEN, MEMBER, Question, Server};
use crate::support::redis_server::RedisServer;

const REPLICAS: u32 = 4;
const INTERVALS: [f64; 3] = [20_020.0, 1_001_000.0, 333.666_666];

/// One step of a generated history.
#[derive(Clone, Debug)]
enum Event {
    Beat(u8),
    Leave(u8),
    /// Budgets, the requests that are asked of each, the burst, and the members last known.
    Refill(Vec<(u8, u32)>, f64, u32),
    /// Time passes, in milliseconds.
    Wait(u32),
    /// The clock is set forward or back, in milliseconds.
    Jump(i32),
    Lose(&'static [&'static str]),
}

/// The scripts, which take the time from their last two arguments.
struct Scripts {
    connection: Connection,
    beat: Script,
    refill: Script,
}

fn at_given_time(source: &str) -> Script {
    const TIME: &str = "redis.call('TIME')";
    assert_eq!(source.matches(TIME).count(), 1, "a script reads the clock once");
    Script::new(&source.replace(TIME, "{ARGV[#ARGV - 1], ARGV[#ARGV]}"))
}

fn us(micros: f64) -> String {
    format!("{micros:.0}")
}

fn clock(now: f64) -> [String; 2] {
    [us((now / 1e6).floor()), us(now % 1e6)]
}

impl Scripts {
    fn beat(&mut self, now: f64, replica: &str) {
        let mut call = self.beat.prepare_invoke();
        let epoch = format!("{replica}-{}", us(now));
        let arguments = [
            replica.to_owned(),
            us(MEMBER),
            us(FORGOTTEN),
            us(now),
            us(200e3),
            epoch,
            "-1".to_owned(),
            "0".to_owned(),
            "names-1".to_owned(),
        ];
        call.key(&["m", "log", "ep", "gap", "ret", "ranks", "names"]).arg(&arguments).arg(&clock(now));
        let _: redis::Value = call.invoke(&mut self.connection).expect("it runs");
    }

    fn refill(&mut self, now: f64, known: u32, questions: &[Question]) -> Vec<Answer> {
        let mut call = self.refill.prepare_invoke();
        call.key(&["m", "ep", "ret", "gap"]).arg(REPLICAS).arg(known).arg(us(now)).arg(us(50e3));
        for question in questions {
            call.key(&question.key)
                .arg(question.interval.to_string())
                .arg(question.burst.to_string())
                .arg(question.asked);
        }
        call.arg(&clock(now));
        call.invoke(&mut self.connection).expect("it runs")
    }

    fn run(&mut self, command: &str, keys: &[&str]) {
        cmd(command).arg(keys).exec(&mut self.connection).expect("the server answers");
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    const LOST: [&[&str]; 6] =
        [&["c:0"], &["m"], &["ret"], &["gap"], &["ep"], &["c:0", "c:1", "c:2", "m", "ep", "ret", "gap"]];
    let event = prop_oneof![
        4 => (0_u8..4).prop_map(Event::Beat),
        1 => (0_u8..4).prop_map(Event::Leave),
        6 => (prop::collection::vec((0_u8..3, 0_u32..60), 1..4), 1_u32..400, 0_u32..6)
            .prop_map(|(budgets, quarters, known)| Event::Refill(budgets, 1.0 + f64::from(quarters) / 4.0, known)),
        5 => prop_oneof![0_u32..100, 100_u32..3000, Just(70_000)].prop_map(Event::Wait),
        1 => prop_oneof![Just(3_600_000), Just(-3_600_000), -500..500].prop_map(Event::Jump),
        1 => prop::sample::select(&LOST[..]).prop_map(Event::Lose),
    ];
    prop::collection::vec(event, 1..40)
}

fn lose(server: &mut Server, keys: &[&str]) {
    for key in keys {
        match *key {
            "m" => server.members.clear(),
            "ep" => server.born = None,
            "ret" => server.returned = 0.0,
            "gap" => server.gap = 0.0,
            budget => drop(server.buckets.remove(budget)),
        }
    }
}

fn play(scripts: &mut Scripts, events: &[Event]) -> Result<(), TestCaseError> {
    scripts.run("FLUSHALL", &[]);
    let (mut model, mut now) = (Server::default(), 1.7e15);
    for event in events {
        match event {
            Event::Beat(replica) => {
                let replica = format!("replica-{replica}");
                model.beat(now, &replica);
                scripts.beat(now, &replica);
            }
            Event::Leave(replica) => {
                let replica = format!("replica-{replica}");
                model.members.remove(&replica);
                scripts.run("ZREM", &["m", &replica]);
            }
            Event::Refill(budgets, burst, known) => {
                let question = |(budget, asked): &(u8, u32)| {
                    let interval = INTERVALS[usize::from(*budget)];
                    Question { key: format!("c:{budget}"), interval, burst: *burst, asked: *asked }
                };
                let questions: Vec<Question> = budgets.iter().map(question).collect();
                let expected: Vec<Answer> =
                    questions.iter().map(|question| model.refill(now, (REPLICAS, *known), question)).collect();
                prop_assert_eq!(scripts.refill(now, *known, &questions), expected);
            }
            Event::Wait(millis) => now += f64::from(*millis) * 1e3,
            Event::Jump(millis) => now += f64::from(*millis) * 1e3,
            Event::Lose(keys) => {
                lose(&mut model, keys);
                scripts.run("DEL", keys);
            }
        }
    }
    Ok(())
}

/// A server, and the scripts on it; `None` if the test is skipped.
async fn start() -> Option<(RedisServer, Scripts)> {
    let redis = RedisServer::start().await?;
    let connection = redis::Client::open(redis.url()).and_then(|client| client.get_connection());
    let scripts = Scripts {
        connection: connection.expect("the server listens"),
        beat: at_given_time(include_str!("../../../src/fleet/scripts/beat.lua")),
        refill: at_given_time(include_str!("../../../src/fleet/scripts/refill.lua")),
    };
    Some((redis, scripts))
}

#[tokio::test]
async fn replicas_that_died_leave_the_others_at_least_their_share() {
    let Some((_redis, mut scripts)) = start().await else { return };
    let now = 1.7e15;
    for replica in 0..14 {
        scripts.beat(now, &format!("replica-{replica}"));
    }
    let later = now + 2e6;
    for replica in 0..2 {
        scripts.beat(later, &format!("replica-{replica}"));
    }
    let question = Question { key: "c:0".to_owned(), interval: 1e6, burst: 1.0, asked: 1 };
    // Two of four replicas may be alone, whatever the number of those that died.
    assert_eq!(scripts.refill(later, 14, &[question]), [(1, 0, 2_000_000)]);
}

#[tokio::test]
async fn the_refill_script_does_what_its_model_does() {
    let Some((_redis, mut scripts)) = start().await else { return };
    let scripts = std::cell::RefCell::new(&mut scripts);
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&events(), |events| play(&mut scripts.borrow_mut(), &events));
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}
