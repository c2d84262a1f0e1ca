//! A Redis server in a process of its own, from the PATH.
//!
//! Tests that need one are skipped where there is none, and say so; with `REQUIRE_REDIS=1`, which `.ci/run` sets, they
//! fail instead.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use redis::Value;

use super::until::until;
use super::{Folder, Port, Running};

/// A running Redis server without persistence, behind a Unix socket.
pub(crate) struct RedisServer {
    process: Running,
    folder: Folder,
    arguments: Vec<String>,
    /// The port, for a server that also listens on TCP.
    port: Option<Port>,
    /// The scheme of the URL by which it is reached over TCP.
    scheme: &'static str,
}

/// Returns whether a program is on the PATH, and says so if a test is skipped for the lack of it.
///
/// # Panics
/// If it is not, and `REQUIRE_REDIS` demands it.
pub(crate) fn has_program(name: &str) -> bool {
    let found = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let has_it = found.is_ok_and(|status| status.success());
    if !has_it {
        assert!(std::env::var_os("REQUIRE_REDIS").is_none(), "{name} is not on the PATH");
        // The harness shows the output of a test that passes with `--nocapture` alone, so it goes around the harness.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {name} is not on the PATH");
    }
    has_it
}

impl RedisServer {
    /// A server behind a Unix socket; `None` if the test is skipped.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// A server behind a Unix socket, with more arguments of `redis-server`.
    pub(crate) async fn start_with(arguments: &[&str]) -> Option<Self> {
        Self::spawn(arguments, None, "redis").await
    }

    /// A server that listens on a free port of the loopback interface too.
    pub(crate) async fn start_on_tcp(arguments: &[&str]) -> Option<Self> {
        Self::spawn(arguments, Some(Port::take()), "redis").await
    }

    /// A server that listens on a free port with TLS, whose files are in the arguments.
    pub(crate) async fn start_on_tls(arguments: &[&str]) -> Option<Self> {
        let port = Port::take();
        let number = port.address().port().to_string();
        let tls = [&["--port", "0", "--tls-port", &number], arguments].concat();
        Self::spawn(&tls, Some(port), "rediss").await
    }

    async fn spawn(arguments: &[&str], port: Option<Port>, scheme: &'static str) -> Option<Self> {
        if !has_program("redis-server") {
            return None;
        }
        let folder = Folder::new();
        let arguments: Vec<String> = arguments.iter().copied().map(str::to_owned).collect();
        let process = Running(spawn(&folder, &arguments, port.as_ref()));
        let server = Self { process, folder, arguments, port, scheme };
        server.until_it_answers().await;
        Some(server)
    }

    /// Waits until a server that copies another one has all of its data.
    pub(crate) async fn until_replicated(&self) {
        let is_up = |info: Value| format!("{info:?}").contains("master_link_status:up");
        until(|| is_up(self.query(&["INFO", "replication"]))).await;
    }

    /// Returns whether the server copies another one. Sentinel breaks its connections when it makes it do so.
    pub(crate) fn is_copy(&self) -> bool {
        self.try_query(&["ROLE"]).is_ok_and(|role| format!("{role:?}").contains("slave"))
    }

    /// The port of a server that listens on TCP.
    pub(crate) fn port(&self) -> u16 {
        self.port.as_ref().expect("it listens on TCP").address().port()
    }

    /// The URL for `[fleet]`.
    pub(crate) fn url(&self) -> String {
        match &self.port {
            Some(port) => format!("{}://{}", self.scheme, port.address()),
            None => format!("unix:{}", self.socket().display()),
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("redis.sock")
    }

    /// Sends a signal: `STOP`, `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.process.0.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Kills the server.
    pub(crate) fn kill(&mut self) {
        self.process.0.kill().expect("it runs");
        self.process.0.wait().expect("it runs");
    }

    /// Starts a killed server again, without its data.
    pub(crate) async fn restart_empty(&mut self) {
        self.process = Running(spawn(&self.folder, &self.arguments, self.port.as_ref()));
        self.until_it_answers().await;
    }

    async fn until_it_answers(&self) {
        until(|| UnixStream::connect(self.socket()).is_ok() && self.try_query(&["TIME"]).is_ok()).await;
    }

    /// The answer to a command, as an administrator without a password.
    pub(crate) fn query(&self, command: &[&str]) -> Value {
        self.try_query(command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    fn try_query(&self, command: &[&str]) -> redis::RedisResult<Value> {
        let client = redis::Client::open(format!("unix:{}", self.socket().display()))?;
        let mut question = redis::cmd(command[0]);
        question.arg(&command[1..]);
        question.query(&mut client.get_connection()?)
    }
}

fn spawn(folder: &Folder, arguments: &[String], port: Option<&Port>) -> std::process::Child {
    let port = port.map_or(0, |port| port.address().port());
    let socket = folder.join("redis.sock");
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--unixsocket"]).arg(socket).arg("--dir");
    command.arg(folder.path()).args(["--save", "", "--appendonly", "no"]).args(arguments).stdout(Stdio::null());
    command.spawn().expect("redis-server runs")
}

/// A Sentinel that watches the service `mymaster`, and promotes a replica on its own when the primary is away for half a second.
pub(crate) struct Sentinel {
    _process: Running,
    _folder: Folder,
    port: Port,
}

impl Sentinel {
    /// Watches a primary; `None` if the test is skipped. Returns when the Sentinel knows a replica of it.
    pub(crate) async fn watch(primary: &RedisServer) -> Option<Self> {
        if !has_program("redis-sentinel") {
            return None;
        }
        let (folder, port) = (Folder::new(), Port::take());
        let configuration = format!(
            "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor mymaster 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 2000\n",
            port.address().port(),
            folder.path().display(),
            primary.port(),
        );
        let file = folder.write("sentinel.conf", configuration);
        let process = Command::new("redis-sentinel").arg(file).stdout(Stdio::null()).spawn().expect("it runs");
        let sentinel = Self { _process: Running(process), _folder: folder, port };
        until(|| sentinel.replicas().is_ok_and(|replicas| !replicas.is_empty())).await;
        Some(sentinel)
    }

    /// The URL for `[fleet]`.
    pub(crate) fn url(&self) -> String {
        format!("redis+sentinel://{}/mymaster", self.port.address())
    }

    fn replicas(&self) -> redis::RedisResult<Vec<Value>> {
        let client = redis::Client::open(format!("redis://{}", self.port.address()))?;
        redis::cmd("SENTINEL").arg("REPLICAS").arg("mymaster").query(&mut client.get_connection()?)
    }
}
