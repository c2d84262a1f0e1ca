//! Commands from the workers' threads to the fleet's thread, which has the connection.

use std::sync::Arc;
use std::time::Duration;

use redis::{ToRedisArgs, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::script::Script;
use super::status::Status;

/// Commands that can wait for the fleet's thread; more are refused.
const LONGEST_QUEUE: usize = 1024;

/// Runs scripts on the fleet's server, from any thread and runtime. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Commands {
    sender: mpsc::Sender<Command>,
    status: Arc<Status>,
    time_limit: Duration,
}

/// The server did not run a script, or its answer is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// There is no connection, so the script has not run.
    #[error("the fleet's server is not connected")]
    Disconnected,
    /// Too many commands wait, so the script has not run.
    #[error("too many commands wait for the fleet's server")]
    Full,
    /// There was no answer in time. The script may have run, or may yet run.
    #[error("the fleet's server did not answer in time")]
    TimedOut,
    /// The connection broke, or the server answered with an error.
    #[error("the fleet's server failed")]
    Failed,
}

/// A script to run, and the way back of its result.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) call: Call,
    pub(super) reply: oneshot::Sender<Result<Value, Unavailable>>,
}

/// A script with its keys and arguments.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) script: &'static Script,
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) arguments: Vec<Vec<u8>>,
}

impl Call {
    pub(super) fn new(script: &'static Script, keys: impl ToRedisArgs, arguments: impl ToRedisArgs) -> Self {
        Self { script, keys: keys.to_redis_args(), arguments: arguments.to_redis_args() }
    }
}

/// Makes the two ends.
pub(super) fn channel(status: &Arc<Status>, time_limit: Duration) -> (Commands, mpsc::Receiver<Command>) {
    let (sender, receiver) = mpsc::channel(LONGEST_QUEUE);
    (Commands { sender, status: Arc::clone(status), time_limit }, receiver)
}

impl Commands {
    /// Runs a script and returns its result, within `[fleet] command_timeout`.
    ///
    /// # Errors
    /// If the server is away, too slow, or answers with an error.
    pub async fn run(
        &self,
        script: &'static Script,
        keys: impl ToRedisArgs,
        arguments: impl ToRedisArgs,
    ) -> Result<Value, Unavailable> {
        if !self.status.is_connected() {
            return Err(Unavailable::Disconnected);
        }
        let (reply, result) = oneshot::channel();
        let command = Command { call: Call::new(script, keys, arguments), reply };
        self.sender.try_send(command).map_err(|_| Unavailable::Full)?;
        match timeout(self.time_limit, result).await {
            Ok(Ok(result)) => result,
            // The fleet's thread has dropped the command with its connection.
            Ok(Err(_)) => Err(Unavailable::Failed),
            Err(_) => Err(Unavailable::TimedOut),
        }
    }
}
