//! Reads the fleet's log over a connection of its own, which waits for the next entry at the server.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Value, cmd};
use tokio::time::{sleep, timeout};

use super::cache_state::CacheState;
use super::commands::Call;
use super::connect::{Connected, Connector};
use super::drop_script::NO_GENERATION;
use super::link::Link;
use super::log::{DroppedEntries, LogEntry, LogEvent, LogPosition, LoggedDrop};
use super::script::ACK;

/// Longest wait of one command for the next entry.
const LONGEST_WAIT: Duration = Duration::from_millis(LONGEST_WAIT_MILLIS);
const LONGEST_WAIT_MILLIS: u64 = 250;
/// Time beyond that after which the connection is given up.
const GRACE: Duration = Duration::from_millis(250);
/// Pause before the first beat is answered.
const PAUSE: Duration = Duration::from_millis(20);
/// Shortest pause before the next connection, doubled after each that has read nothing.
const SHORTEST_BACKOFF: Duration = Duration::from_millis(20);
/// Longest pause before the next connection.
const LONGEST_BACKOFF: Duration = Duration::from_millis(250);
/// Most entries of one answer.
const MOST_ENTRIES: usize = 256;

/// Reads the log of one server.
#[derive(Debug)]
pub(super) struct LogReader<'a> {
    pub(super) connector: &'a Connector,
    pub(super) cache: &'a CacheState,
    /// The connection for scripts.
    pub(super) link: &'a Link,
    /// The replication id of that connection's server.
    pub(super) server: &'a str,
    pub(super) id: &'a str,
    /// The keys of the log, the positions and the members.
    pub(super) log: String,
    pub(super) positions: String,
    pub(super) members: String,
}

impl LogReader<'_> {
    /// Reads for as long as it is polled. Without a connection the trust in what this process holds ends by itself, once the log
    /// has grown.
    pub(super) async fn read_forever(&self) {
        let mut backoff = SHORTEST_BACKOFF;
        let mut shown = None;
        loop {
            let problem = match self.connector.connect().await {
                Ok(connected) if connected.replication_id == self.server => {
                    if self.read(connected, &mut shown).await {
                        backoff = SHORTEST_BACKOFF;
                    }
                    "its connection has ended".to_owned()
                }
                // Sentinel may name another one by now; then the connection for scripts ends soon too.
                Ok(_) => "its connection leads to another server".to_owned(),
                Err(error) => error.to_string(),
            };
            let problem: Arc<str> = format!("the log can't be read: {problem}").into();
            self.link.show_log_problem(shown.as_ref(), Some(&problem));
            shown = Some(problem);
            sleep(backoff).await;
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }

    /// Reads until the connection fails, and takes back the problem that is shown. Returns false if nothing could be read.
    async fn read(&self, connected: Connected, shown: &mut Option<Arc<str>>) -> bool {
        let Connected { mut connection, driver: _driver, .. } = connected;
        let mut told = None;
        let mut has_read = false;
        loop {
            let Some(position) = self.cache.position() else {
                sleep(PAUSE).await;
                continue;
            };
            // Also before the first drop: the others wait for a member of which they know nothing.
            if told != Some(position) && self.tell(position).await {
                told = Some(position);
            }
            let Some(entries) = self.entries_after(position, &mut connection).await else { return has_read };
            has_read = true;
            if let Some(problem) = shown.take() {
                self.link.show_log_problem(Some(&problem), None);
            }
            let has_dropped = self.cache.apply(entries);
            if !has_dropped && told == Some(position) {
                // Replicas wait only for drops.
                told = self.cache.position();
            }
        }
    }

    /// Tells the server how far the log is read and applied.
    async fn tell(&self, position: LogPosition) -> bool {
        let keys = [&self.positions, &self.members];
        self.link.run(&Call::new(&ACK, &keys[..], (self.id, position.to_string()))).await.is_ok()
    }

    /// The next entries, if there are any in time; `None` if the connection has failed.
    async fn entries_after(
        &self,
        position: LogPosition,
        connection: &mut MultiplexedConnection,
    ) -> Option<Vec<LogEntry>> {
        let mut command = cmd("XREAD");
        command.arg("COUNT").arg(MOST_ENTRIES).arg("BLOCK").arg(LONGEST_WAIT_MILLIS);
        command.arg("STREAMS").arg(&self.log).arg(position.to_string());
        let answer = timeout(LONGEST_WAIT + GRACE, command.query_async::<Value>(connection)).await.ok()?;
        read(answer.inspect_err(|error| self.link.command_failed("XREAD", error)).ok()?)
    }
}

/// The entries in an answer to `XREAD` from one stream.
fn read(answer: Value) -> Option<Vec<LogEntry>> {
    if answer == Value::Nil {
        return Some(Vec::new());
    }
    let streams = Vec::<(Value, Vec<(Vec<u8>, Vec<Vec<u8>>)>)>::from_redis_value(answer).ok()?;
    let entries = streams.into_iter().flat_map(|(_, entries)| entries);
    entries.map(|(id, fields)| Some(entry(LogPosition::parse(&id)?, &fields))).collect()
}

/// An entry of the log, of which anyone may have written it who can write to the server.
fn entry(position: LogPosition, fields: &[Vec<u8>]) -> LogEntry {
    let field = |name: &str| {
        let named = fields.chunks_exact(2).find(|pair| pair[0] == name.as_bytes());
        named.map(|pair| pair[1].as_slice())
    };
    let after = field("after").and_then(LogPosition::parse);
    LogEntry { position, after, event: dropped(field).or_else(|| landed(field)) }
}

fn dropped<'a>(field: impl Fn(&str) -> Option<&'a [u8]>) -> Option<LogEvent> {
    let partition = text(field("dropped")?)?;
    let partition = (&*partition != "*").then_some(partition);
    let dropped = DroppedEntries { tenant: text(field("tenant")?)?, partition };
    let generation =
        text(field("generation")?)?.parse::<u64>().ok().filter(|generation| *generation < NO_GENERATION)?;
    Some(LogEvent::Dropped(LoggedDrop { dropped, generation }))
}

fn landed<'a>(field: impl Fn(&str) -> Option<&'a [u8]>) -> Option<LogEvent> {
    Some(LogEvent::Landed { question: text(field("landed")?)?, outcome: field("outcome")?.into() })
}

fn text(bytes: &[u8]) -> Option<Box<str>> {
    std::str::from_utf8(bytes).ok().map(Box::from)
}
