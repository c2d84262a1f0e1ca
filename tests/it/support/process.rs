//! The program in a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::thread::JoinHandle;

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tokio::sync::watch;

use super::command::{Postern, command};
use super::until::{until, within};
use super::{Configuration, Folder, leaks};

/// A running process, killed with the test. Neither its output nor its log contains a secret.
pub(crate) struct Process {
    child: Running,
    log: watch::Receiver<Vec<String>>,
    log_reader: Option<JoinHandle<()>>,
    output_reader: Option<JoinHandle<String>>,
    /// The folder of the configuration, if the process has one of its own.
    folder: Option<Folder>,
}

/// The output of a process that has ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) output: String,
    pub(crate) log: Vec<String>,
}

impl Process {
    /// Serves a configuration file; returns when the process listens.
    pub(crate) async fn serve(configuration: &Path) -> Self {
        Self::run(command(configuration)).await
    }

    /// Serves a configuration file beside a process that listens at the same addresses.
    pub(crate) async fn take_over(configuration: &Path) -> Self {
        let mut command = command(configuration);
        command.arg("--take-over");
        Self::run(command).await
    }

    /// Serves a configuration; returns when the process listens.
    pub(crate) async fn serve_configuration(configuration: &Configuration, environment: &[(&str, &str)]) -> Self {
        let folder = Folder::new();
        let mut command = command(&folder.write("postern.toml", configuration.to_toml()));
        command.envs(environment.iter().copied());
        let mut process = Self::run(command).await;
        process.folder = Some(folder);
        process
    }

    /// Runs a command; returns when the process listens.
    pub(crate) async fn run(mut command: Postern) -> Self {
        let mut child = command.start();
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let mut output = child.stdout.take().expect("piped");
        let (sender, log) = watch::channel(Vec::new());
        let log_reader = std::thread::spawn(move || {
            lines.for_each(|line| sender.send_modify(|log: &mut Vec<String>| log.push(line)));
        });
        let output_reader = std::thread::spawn(move || {
            let mut text = String::new();
            output.read_to_string(&mut text).expect("UTF-8");
            text
        });
        let (log_reader, output_reader) = (Some(log_reader), Some(output_reader));
        let child = Running(child);
        let mut process = Self { child, log, log_reader, output_reader, folder: None };
        process.until_logged("\"listening\"", 1).await;
        process
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.0.id()
    }

    /// The address of its first listener, which the log names.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address_in("\"listening\"")
    }

    /// The address of the admin listener, once the log has named it.
    pub(crate) async fn admin_address(&mut self) -> SocketAddr {
        self.until_logged("\"admin_listening\"", 1).await;
        self.address_in("\"admin_listening\"")
    }

    fn address_in(&self, event: &str) -> SocketAddr {
        let line: Value = serde_json::from_str(&self.logged(event)[0]).expect("JSON");
        line["address"].as_str().expect("an address").parse().expect("an address")
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.0.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// The lines of the log that contain a text.
    pub(crate) fn logged(&self, text: &str) -> Vec<String> {
        self.log.borrow().iter().filter(|line| line.contains(text)).cloned().collect()
    }

    /// Waits until so many lines of the log contain a text.
    pub(crate) async fn until_logged(&mut self, text: &str, lines: usize) {
        let logged = self.log.wait_for(|log| log.iter().filter(|line| line.contains(text)).count() >= lines);
        let found = within(logged).await.is_ok();
        assert!(found, "the process ended without {text}: {:#?}", *self.log.borrow());
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) async fn terminate(self) -> Ended {
        self.signal("TERM");
        self.ended().await
    }

    /// Waits for the end.
    pub(crate) async fn ended(mut self) -> Ended {
        let mut status = None;
        until(|| {
            status = self.child.0.try_wait().expect("a child process");
            status.is_some()
        })
        .await;
        let output = self.read_to_end();
        Ended { status: status.expect("it has ended"), output, log: self.log.borrow().clone() }
    }

    /// Reads the output of the process, which has ended, and looks for secrets in it and in the log.
    fn read_to_end(&mut self) -> String {
        let Some((log, output)) = self.log_reader.take().zip(self.output_reader.take()) else { return String::new() };
        log.join().expect("no panic");
        let output = output.join().expect("no panic");
        leaks::check("the log of a process", &self.log.borrow().join("\n"));
        leaks::check("the output of a process", &output);
        output
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.0.kill();
        let _ = self.child.0.wait();
        self.read_to_end();
        drop(self.folder.take());
    }
}

/// A child process, killed with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that no other process is given while this lives, and at which several processes can listen.
pub(crate) struct Port(Socket);

impl Port {
    pub(crate) fn take() -> Self {
        Self::take_at((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// A port of all addresses, of both versions of IP.
    pub(crate) fn take_everywhere() -> Self {
        Self::take_at((Ipv6Addr::UNSPECIFIED, 0).into())
    }

    fn take_at(address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        socket.set_reuse_port(true).expect("the system allows it");
        // As this socket does not listen, a process that checks whether the port is free finds it free.
        socket.set_reuse_address(true).expect("the system allows it");
        socket.bind(&address.into()).expect("a free port");
        // The socket does not listen, so no connection comes to it.
        Self(socket)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("the socket is bound").as_socket().expect("an address")
    }
}
