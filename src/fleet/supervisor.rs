//! The fleet's thread: keeps a connection, beats, runs the workers' commands, and reports the state.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use redis::{FromRedisValue, Value};
use tokio::sync::{mpsc, watch};

use super::cache_state::CacheState;
use super::commands::{Call, Command, Unavailable};
use super::connect::{ConnectError, Connected, Connector};
use super::drop_script::{drop_call, position};
use super::link::{Link, LinkEnd};
use super::log::LogPosition;
use super::log_reader::LogReader;
use super::membership::{Accepted, BEAT_MILLIS, Beat, FORGOTTEN_AFTER, FleetState, LEASE, LONGEST_DELAY, Membership};
use super::names::Names;
use super::reckoning::as_micros;
use super::script::{BEAT, LEAVE};
use super::status::Status;
use crate::clock::Moment;
use crate::digest::sha256;
use crate::log_events;

/// Shortest pause before the next connection, doubled after each failure.
const SHORTEST_BACKOFF: Duration = Duration::from_millis(25);
/// Longest pause before the next connection.
const LONGEST_BACKOFF: Duration = Duration::from_millis(250);
/// Pause after a script has failed, or the fleet has refused this replica: it would again.
const SCRIPT_BACKOFF: Duration = Duration::from_secs(10);
/// The problem of a replica that the fleet refuses.
const OTHER_SECRET: &str =
    "the other replicas have another secret: `first_secret`, or `secret` without it, has to be the same on all";
/// Pause before the beat that tells that the server's clock was set.
const NEXT_BEAT_AFTER_A_SET_CLOCK: Duration = Duration::from_millis(5);
/// Interval between two looks at the state, for the log.
const STATE_CHECK: Duration = Duration::from_millis(50);

/// The surroundings of the fleet's thread.
pub(super) struct Supervisor {
    pub(super) connector: Connector,
    pub(super) names: Arc<Names>,
    pub(super) status: Arc<Status>,
    pub(super) cache: Arc<CacheState>,
    pub(super) id: Arc<str>,
    pub(super) replicas: u32,
    pub(super) command_timeout: Duration,
    pub(super) commands: mpsc::Receiver<Command>,
    /// Becomes true when the process leaves the fleet.
    pub(super) stop: watch::Receiver<bool>,
}

/// The membership and what its beats need.
struct Member<'a> {
    membership: Membership,
    status: &'a Status,
    cache: &'a CacheState,
    names: &'a Names,
    rng: Rng,
    keys: [String; 7],
    id: Arc<str>,
    /// The id of the key from which this replica's names derive.
    names_id: String,
    replicas: u32,
    /// True once more replicas than configured were reported.
    has_reported_surplus: bool,
    /// True once another secret than the fleet's was reported.
    is_stranger: bool,
}

impl Supervisor {
    /// Runs until the process leaves the fleet.
    pub(super) async fn run(mut self) {
        let status = Arc::clone(&self.status);
        tokio::select! {
            () = self.serve() => {}
            () = report_states(&status) => {}
        }
    }

    async fn serve(&mut self) {
        let (status, cache, names) = (Arc::clone(&self.status), Arc::clone(&self.cache), Arc::clone(&self.names));
        let mut member = Member {
            membership: Membership::new(status.clock.now()),
            status: &status,
            cache: &cache,
            names: &names,
            rng: Rng::with_seed(seed(&self.id)),
            keys: ["m", "log", "ep", "gap", "ret", "ranks", "names"].map(|kind| self.names.single(kind)),
            id: Arc::clone(&self.id),
            names_id: self.names.id(),
            replicas: self.replicas,
            has_reported_surplus: false,
            is_stranger: false,
        };
        let mut backoff = SHORTEST_BACKOFF;
        let mut has_reported = false;
        loop {
            let opened = tokio::select! {
                opened = self.connector.connect() => opened,
                () = refuse(&mut self.commands) => return,
                _ = self.stop.wait_for(|stop| *stop) => return,
            };
            let pause = match opened {
                Ok(connected) => {
                    let before = member.membership.standing().last_good;
                    let end = self.use_connection(connected, &mut member).await;
                    // A server that connects and then answers no beat is not asked all the time.
                    let has_worked = member.membership.standing().last_good > before;
                    (backoff, has_reported) =
                        if has_worked { (SHORTEST_BACKOFF, false) } else { (longer(backoff), has_reported) };
                    match end {
                        None => return,
                        Some(LinkEnd::Away) => backoff,
                        Some(LinkEnd::ScriptFailed | LinkEnd::Stranger) => SCRIPT_BACKOFF,
                    }
                }
                Err(error) => {
                    report(&error, &status, &mut has_reported);
                    backoff = longer(backoff);
                    backoff
                }
            };
            let pause = pause.mul_f64(member.rng.f64().mul_add(0.5, 0.75));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = refuse(&mut self.commands) => return,
                _ = self.stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Uses a connection until it is given up; `None` once the process has left the fleet.
    async fn use_connection(&mut self, connected: Connected, member: &mut Member<'_>) -> Option<LinkEnd> {
        let Connected { connection, driver, replication_id, version, reckoning } = connected;
        let status = &self.status;
        let now = status.clock.now();
        member.membership.connected(now, &replication_id, reckoning);
        status.publish(member.membership.standing());
        if status.set_server(seed(&replication_id)) {
            self.cache.another_server();
        }
        status.metrics.connections.inc();
        if !member.is_stranger {
            status.set_problem(None);
        }
        tracing::info!(version, message = log_events::FLEET_CONNECTED);
        let link = Link::new(connection, driver, Arc::clone(status), self.command_timeout);
        let reader = LogReader {
            connector: &self.connector,
            cache: &self.cache,
            link: &link,
            server: &replication_id,
            id: &self.id,
            log: self.names.single("log"),
            positions: self.names.single("read"),
            members: self.names.single("m"),
        };
        let end = tokio::select! {
            biased;
            _ = self.stop.wait_for(|stop| *stop) => None,
            end = link.ended() => Some(end),
            () = member.beat_forever(&link) => None,
            () = reader.read_forever() => None,
            () = execute(&mut self.commands, &link) => None,
        };
        status.set_connected(false);
        if end.is_none() {
            let leave = Call::new(&LEAVE, &[&member.keys[0], &member.keys[5]], &*member.id);
            // If it fails, the lease ends by itself.
            let _ = link.run(&leave).await;
        }
        member.membership.disconnected();
        status.publish(member.membership.standing());
        end
    }
}

impl Member<'_> {
    async fn beat_forever(&mut self, link: &Link) {
        loop {
            let sent = self.status.clock.now();
            if self.send_unsent(link).await {
                self.beat(link, sent).await;
            }
            let pause = if self.membership.clock_was_set() {
                NEXT_BEAT_AFTER_A_SET_CLOCK
            } else {
                Duration::from_millis(self.rng.u64(BEAT_MILLIS))
            };
            self.status.clock.sleep_until(sent + pause).await;
        }
    }

    /// Sends the drops that the server was not told yet, before this replica counts as one that knows all drops. Returns false
    /// if one failed.
    async fn send_unsent(&self, link: &Link) -> bool {
        for (number, dropped) in self.cache.unsent() {
            let answer = link.run(&drop_call(self.names, &dropped, 0)).await;
            if answer.ok().and_then(position).is_none() {
                return false;
            }
            // This process may have taken an entry from the server that is dropped by now.
            self.cache.drop_locally(&dropped, 0);
            self.cache.sent(number);
        }
        true
    }

    async fn beat(&mut self, link: &Link, sent: Moment) {
        let Some(reckoning) = self.membership.reading() else { return };
        let read = self.cache.position();
        self.membership.beat_sent(sent);
        self.status.publish(self.membership.standing());
        #[expect(clippy::cast_possible_truncation, reason = "microseconds since 1970 fit")]
        let sent_at = reckoning.earliest(sent) as i64;
        let arguments = (
            &*self.id,
            as_micros(LEASE),
            as_micros(FORGOTTEN_AFTER),
            sent_at,
            as_micros(LONGEST_DELAY),
            // Any member may give the epoch; it only has to be new.
            format!("{}-{sent_at}", self.id),
            self.status.members().rank.map_or(-1, i64::from),
            u8::from(self.membership.clock_was_set()),
            &*self.names_id,
        );
        let Ok(answer) = link.run(&Call::new(&BEAT, &self.keys, arguments)).await else { return };
        let (beat, end_of_log) = match read_answer(answer) {
            Some(BeatAnswer::Heard(beat, end_of_log)) => (beat, end_of_log),
            Some(BeatAnswer::Stranger) => return self.refused(link),
            None => {
                let error = "the answer can't be understood";
                tracing::error!(script = BEAT.name(), error, message = log_events::FLEET_SCRIPT_FAILED);
                return;
            }
        };
        if beat.accepted.is_some() {
            self.accepted(sent);
        }
        if self.membership.beat_answered(&beat, sent, self.status.clock.now()) {
            tracing::warn!(message = log_events::FLEET_STATE_LOST);
            self.status.events.add(log_events::FLEET_STATE_LOST, String::new());
        }
        self.status.publish(self.membership.standing());
        if let Some(accepted) = &beat.accepted {
            self.cache.beat(&accepted.epoch, end_of_log, (sent, read));
        }
        self.report_surplus();
    }

    /// Records that the fleet counts this replica as a member. Only then do commands run: those of a stranger would use other names.
    fn accepted(&mut self, sent: Moment) {
        self.cache.heard(sent);
        if std::mem::take(&mut self.is_stranger) {
            self.status.set_problem(None);
        }
        self.status.set_connected(true);
    }

    /// Gives the connection up: the members of the fleet have another secret than this replica. Reported once.
    fn refused(&mut self, link: &Link) {
        if !std::mem::replace(&mut self.is_stranger, true) {
            tracing::error!(message = log_events::FLEET_SECRET_DIFFERS);
        }
        self.status.set_problem(Some(OTHER_SECRET.into()));
        link.give_up(LinkEnd::Stranger);
    }

    /// Reports once that more replicas run than the configuration says.
    fn report_surplus(&mut self) {
        let members = self.status.members().live;
        let is_surplus = members > self.replicas;
        if is_surplus && !self.has_reported_surplus {
            tracing::error!(members, replicas = self.replicas, message = log_events::FLEET_TOO_MANY_REPLICAS);
            let details = format!("{members} replicas run, and fleet.replicas is {}", self.replicas);
            self.status.events.add(log_events::FLEET_TOO_MANY_REPLICAS, details);
        }
        self.has_reported_surplus = is_surplus;
    }
}

fn longer(backoff: Duration) -> Duration {
    (backoff * 2).min(LONGEST_BACKOFF)
}

/// The answer to a beat.
enum BeatAnswer {
    /// The beat was heard, and may have been late; with the end of the log.
    Heard(Beat, LogPosition),
    /// The fleet's names derive from another secret.
    Stranger,
}

/// Reads the answer to a beat.
fn read_answer(answer: Value) -> Option<BeatAnswer> {
    let Value::Array(fields) = answer else { return None };
    let mut fields = fields.into_iter();
    let mut next = || fields.next();
    let outcome = String::from_redis_value(next()?).ok()?;
    let server_time = f64::from_redis_value(next()?).ok()?;
    match outcome.as_str() {
        "ok" => {}
        "stranger" => return Some(BeatAnswer::Stranger),
        _ => return Some(BeatAnswer::Heard(Beat { server_time, accepted: None }, LogPosition::default())),
    }
    let epoch = Vec::from_redis_value(next()?).ok()?;
    let end_of_log = LogPosition::parse(&Vec::<u8>::from_redis_value(next()?).ok()?)?;
    let known = u32::from_redis_value(next()?).ok()?;
    let live = u32::from_redis_value(next()?).ok()?;
    let rank = u32::try_from(i64::from_redis_value(next()?).ok()?).ok();
    let accepted = Some(Accepted { epoch, known, live, rank });
    Some(BeatAnswer::Heard(Beat { server_time, accepted }, end_of_log))
}

/// Runs commands, all of them at the same time, until no more can come.
async fn execute(commands: &mut mpsc::Receiver<Command>, link: &Link) {
    while let Some(Command { call, reply }) = commands.recv().await {
        let link = link.clone();
        tokio::spawn(async move {
            tokio::select! {
                result = link.run(&call) => drop(reply.send(result)),
                // A caller that is gone still gets its script run, but its connection has ended.
                _ = link.ended() => drop(reply.send(Err(Unavailable::Failed))),
            }
        });
    }
}

/// Refuses commands that were on their way when the connection ended, until no more can come.
async fn refuse(commands: &mut mpsc::Receiver<Command>) {
    while let Some(command) = commands.recv().await {
        // Fails if the caller is gone.
        let _ = command.reply.send(Err(Unavailable::Disconnected));
    }
}

/// Logs the first failure of an outage, and keeps the last for the status page.
fn report(error: &ConnectError, status: &Status, has_reported: &mut bool) {
    status.set_problem(Some(error.to_string().into()));
    if !std::mem::replace(has_reported, true) {
        tracing::warn!(%error, message = log_events::FLEET_UNREACHABLE);
        status.events.add(log_events::FLEET_UNREACHABLE, error.to_string());
    }
}

/// Logs changes of the state, which time alone can cause. Only those from and to [`FleetState::Alone`] are events: short interruptions
/// would displace all others.
async fn report_states(status: &Status) {
    let mut before = FleetState::Joining;
    loop {
        let state = status.follow_time();
        if state != before {
            let (from, to) = (before.name(), state.name());
            if [before, state].contains(&FleetState::Alone) {
                status.events.add(log_events::FLEET_STATE_CHANGED, format!("from {from} to {to}"));
            }
            if state == FleetState::Alone {
                tracing::warn!(from, state = to, message = log_events::FLEET_STATE_CHANGED);
            } else {
                tracing::info!(from, state = to, message = log_events::FLEET_STATE_CHANGED);
            }
            before = state;
        }
        tokio::time::sleep(STATE_CHECK).await;
    }
}

/// A number from a text.
fn seed(text: &str) -> u64 {
    let digest = sha256(text.as_bytes());
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
