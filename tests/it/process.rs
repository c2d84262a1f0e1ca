//! The program as processes of its own: started, told something, and replaced.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::harness::{NEXT_ORG_KEY, ORG_KEY, OTHER_ORG_KEY};

/// A process that ends with the test.
pub(crate) struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// `postern serve`, once it listens.
    pub(crate) async fn serve(configuration: &Path) -> Self {
        Self::run(Self::command(configuration)).await
    }

    /// `postern serve`, to be run.
    pub(crate) fn command(configuration: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
        command.args(["serve", "--config"]).arg(configuration);
        command.envs([("ORG_KEY", ORG_KEY), ("NEXT_ORG_KEY", NEXT_ORG_KEY), ("OTHER_ORG_KEY", OTHER_ORG_KEY)]);
        command
    }

    /// Runs it, and waits until it listens.
    pub(crate) async fn run(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it runs");
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let log = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&log);
        std::thread::spawn(move || lines.for_each(|line| written.lock().expect("no panic").push(line)));
        let process = Self { child, log };
        process.until_logged("\"listening\"", 1).await;
        process
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// The lines of its log that have a text in them.
    pub(crate) fn logged(&self, text: &str) -> Vec<String> {
        let log = self.log.lock().expect("no panic");
        log.iter().filter(|line| line.contains(text)).cloned().collect()
    }

    /// Waits until so many lines of its log have a text in them.
    pub(crate) async fn until_logged(&self, text: &str, lines: usize) {
        let logged = async {
            while self.logged(text).len() < lines {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let all = || self.log.lock().expect("no panic").join("\n");
        tokio::time::timeout(Duration::from_secs(30), logged).await.unwrap_or_else(|_| panic!("no {text}: {}", all()));
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait().expect("it is a child") {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), ended).await.expect("it ends")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody else is given while this lives, and at which several processes can listen.
pub(crate) struct Port(Socket);

impl Port {
    pub(crate) fn take() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_port(true).expect("it is allowed");
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
        // It does not listen: no connection comes here.
        Self(socket)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("it is bound").as_socket().expect("an address")
    }
}
