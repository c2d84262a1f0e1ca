//! Opens a connection to the fleet's server: finds the server, logs in, checks what it is, and loads the scripts.
//!
//! A server counts as connected only if it runs a script in time. Otherwise each connection would send a beat whose answer never
//! comes, and whose lease keeps the replica from going on alone.

use std::io;
use std::str::FromStr;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, RedisError, Value, cmd};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::dial::{self, MaybeTls, Stream};
use super::reckoning::Reckoning;
use super::script::{READY, SCRIPTS};
use crate::clock::Clock;
use crate::config::{FleetConfig, FleetServer, HostAndPort, Secret};
use crate::http_client::{ClientSetupError, client_tls};

/// The oldest version of Redis whose scripts can have flags.
const OLDEST_MAJOR_VERSION: u32 = 7;

/// The fleet's server can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No connection could be opened.
    #[error("{server} can't be reached: {source}")]
    Unreachable {
        /// The server.
        server: String,
        /// The operating system's or the TLS library's error.
        source: io::Error,
    },
    /// A step took longer than `connect_timeout`.
    #[error("{0}: not done within connect_timeout")]
    TimedOut(&'static str),
    /// The server answered with an error, or broke the connection.
    #[error("{step}: {source}")]
    Refused {
        /// The step that it refused.
        step: &'static str,
        /// Its error.
        source: RedisError,
    },
    /// No Sentinel knows the service.
    #[error("no Sentinel names a server for `{0}`")]
    UnknownService(String),
    /// The server is of an older version.
    #[error("the server is Redis {0}; a fleet needs Redis 7.0 or later, or Valkey")]
    TooOld(String),
    /// The server is a copy of another one, and takes no writes.
    #[error("the server is a replica of another one and takes no writes")]
    ReadOnly,
    /// A script takes too long, as every beat would.
    #[error("the server takes longer than command_timeout to run a script")]
    TooSlow,
    /// The answer can't be understood.
    #[error("{0}: the answer can't be understood")]
    Unintelligible(&'static str),
}

/// Opens connections to a fleet's server.
#[derive(Debug)]
pub(super) struct Connector {
    server: FleetServer,
    tls: MaybeTls,
    login: RedisConnectionInfo,
    sentinel_login: RedisConnectionInfo,
    time_limit: Duration,
    command_timeout: Duration,
    clock: Clock,
}

/// A connection, and what is known of its server.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) connection: MultiplexedConnection,
    pub(super) driver: Driver,
    /// The server's replication id, which another primary does not have.
    pub(super) replication_id: String,
    /// The version that the server tells.
    pub(super) version: String,
    pub(super) reckoning: Reckoning,
}

/// The task that moves the bytes of a connection. The connection ends with it.
#[derive(Debug)]
pub(super) struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connector {
    /// A connector for a configuration's server.
    ///
    /// # Errors
    /// If the file of certificate authorities can't be used.
    pub(super) fn new(config: &FleetConfig, clock: Clock) -> Result<Self, ClientSetupError> {
        let server = config.url.server().clone();
        let (FleetServer::Tcp { is_tls, .. } | FleetServer::Sentinel { is_tls, .. }) = server else {
            return Ok(Self::plain(config, server, clock));
        };
        let tls = is_tls.then(|| client_tls(config.ca_file.as_ref().map(|file| file.path.as_path()))).transpose()?;
        Ok(Self { tls: MaybeTls(tls.map(Into::into)), ..Self::plain(config, server, clock) })
    }

    fn plain(config: &FleetConfig, server: FleetServer, clock: Clock) -> Self {
        let database = if let FleetServer::Tcp { database, .. } = server { database } else { 0 };
        Self {
            login: login(config.username.as_deref(), config.password.as_ref(), database),
            sentinel_login: login(None, config.sentinel_password.as_ref(), 0),
            time_limit: config.connect_timeout,
            command_timeout: config.command_timeout,
            tls: MaybeTls(None),
            server,
            clock,
        }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// If the server can't be reached, refuses, or can't serve a fleet.
    pub(super) async fn connect(&self) -> Result<Connected, ConnectError> {
        let stream = match &self.server {
            FleetServer::Unix(path) => self.open(&path.display(), dial::unix(path)).await?,
            FleetServer::Tcp { address, .. } => self.open(address, dial::tcp(address, &self.tls)).await?,
            FleetServer::Sentinel { sentinels, service, .. } => {
                let address = self.ask_sentinels(sentinels, service).await?;
                self.open(&address, dial::tcp(&address, &self.tls)).await?
            }
        };
        let (mut connection, driver) = self.log_in(stream, &self.login).await?;
        // All of it shares one limit, since a paused server accepts connections and answers nothing.
        let set_up = self.set_up(&mut connection);
        let (version, replication_id, reckoning) = timeout(self.time_limit, set_up)
            .await
            .map_err(|_| ConnectError::TimedOut("INFO, SCRIPT LOAD, EVALSHA and TIME"))??;
        Ok(Connected { connection, driver, replication_id, version, reckoning })
    }

    async fn set_up(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(String, String, Reckoning), ConnectError> {
        let (version, replication_id) = identify(connection).await?;
        for script in SCRIPTS {
            ask::<String>(connection, "SCRIPT LOAD", cmd("SCRIPT").arg("LOAD").arg(script.source())).await?;
        }
        self.run_a_script(connection).await?;
        let sent = self.clock.now();
        let (seconds, micros) = ask::<(u64, u64)>(connection, "TIME", &cmd("TIME")).await?;
        #[expect(clippy::cast_precision_loss, reason = "microseconds since 1970 are below 2^53")]
        let server = (seconds * 1_000_000 + micros) as f64;
        Ok((version, replication_id, Reckoning::new(server, sent, self.clock.now())))
    }

    /// Runs a script, which a server refuses that takes no writes at the moment: `NOREPLICAS`, `MISCONF`.
    async fn run_a_script(&self, connection: &mut MultiplexedConnection) -> Result<(), ConnectError> {
        let ready = READY.hashed().prepare_invoke();
        let answer = timeout(self.command_timeout, ready.invoke_async::<Value>(connection)).await;
        let answer = answer.map_err(|_| ConnectError::TooSlow)?;
        answer.map(drop).map_err(|source| ConnectError::Refused { step: "EVALSHA", source })
    }

    async fn open(
        &self,
        server: &(impl ToString + ?Sized),
        opening: impl Future<Output = io::Result<Box<dyn Stream>>>,
    ) -> Result<Box<dyn Stream>, ConnectError> {
        let opened = timeout(self.time_limit, opening).await.map_err(|_| ConnectError::TimedOut("connect"))?;
        opened.map_err(|source| ConnectError::Unreachable { server: server.to_string(), source })
    }

    async fn log_in(
        &self,
        stream: Box<dyn Stream>,
        login: &RedisConnectionInfo,
    ) -> Result<(MultiplexedConnection, Driver), ConnectError> {
        const STEP: &str = "AUTH and SELECT";
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let setting_up = MultiplexedConnection::new_with_config(login, stream, config);
        let set_up = timeout(self.time_limit, setting_up).await.map_err(|_| ConnectError::TimedOut(STEP))?;
        let (connection, driver) = set_up.map_err(|source| ConnectError::Refused { step: STEP, source })?;
        Ok((connection, Driver(tokio::spawn(driver))))
    }

    /// Asks one Sentinel after the other for the server of a service.
    async fn ask_sentinels(&self, sentinels: &[HostAndPort], service: &str) -> Result<HostAndPort, ConnectError> {
        let mut last = ConnectError::UnknownService(service.to_owned());
        for sentinel in sentinels {
            match self.ask_sentinel(sentinel, service).await {
                Ok(Some(server)) => return Ok(server),
                Ok(None) => last = ConnectError::UnknownService(service.to_owned()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask_sentinel(&self, sentinel: &HostAndPort, service: &str) -> Result<Option<HostAndPort>, ConnectError> {
        const STEP: &str = "SENTINEL GET-MASTER-ADDR-BY-NAME";
        let stream = self.open(sentinel, dial::tcp(sentinel, &self.tls)).await?;
        let (mut connection, _driver) = self.log_in(stream, &self.sentinel_login).await?;
        let mut question = cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        let asked = ask::<Option<(String, u16)>>(&mut connection, STEP, &question);
        let answer = timeout(self.time_limit, asked).await.map_err(|_| ConnectError::TimedOut(STEP))??;
        Ok(answer.map(|(host, port)| HostAndPort { host: host.into(), port }))
    }
}

fn login(username: Option<&str>, password: Option<&Secret>, database: u16) -> RedisConnectionInfo {
    // CLIENT SETINFO would be one more command to permit.
    let mut login = RedisConnectionInfo::default().set_skip_set_lib_name().set_db(database.into());
    if let Some(username) = username {
        login = login.set_username(username);
    }
    if let Some(password) = password {
        login = login.set_password(password.expose());
    }
    login
}

async fn ask<T: redis::FromRedisValue>(
    connection: &mut MultiplexedConnection,
    step: &'static str,
    command: &Cmd,
) -> Result<T, ConnectError> {
    let answer: Value =
        command.query_async(connection).await.map_err(|source| ConnectError::Refused { step, source })?;
    T::from_redis_value(answer).map_err(|_| ConnectError::Unintelligible(step))
}

/// Returns the server's version and replication id.
async fn identify(connection: &mut MultiplexedConnection) -> Result<(String, String), ConnectError> {
    const STEP: &str = "INFO";
    let info: String = ask(connection, STEP, cmd("INFO").arg("server").arg("replication")).await?;
    let field = |name: &str| {
        info.lines().find_map(|line| line.split_once(':').filter(|(field, _)| *field == name)).map(|(_, value)| value)
    };
    let version = field("redis_version").ok_or(ConnectError::Unintelligible(STEP))?;
    let major = version.split('.').next().and_then(|major| u32::from_str(major).ok());
    if major.is_none_or(|major| major < OLDEST_MAJOR_VERSION) {
        return Err(ConnectError::TooOld(version.to_owned()));
    }
    if field("role") != Some("master") {
        return Err(ConnectError::ReadOnly);
    }
    let replication_id = field("master_replid").ok_or(ConnectError::Unintelligible(STEP))?;
    Ok((field("valkey_version").unwrap_or(version).to_owned(), replication_id.to_owned()))
}
