//! Standard error of the program where another process shares it, where it is full, and where its reader has gone.

use std::fs::File;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::net::SocketAddr;
use std::process::Stdio;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use serde_json::Value;

use crate::support::connection::{get, raw};
use crate::support::{
    Client, Configuration, Folder, Listener, Port, Running, command, eventually, leaks, until, within,
};

/// A program with a standard error of the test.
struct Program {
    child: Running,
    address: SocketAddr,
    admin: Client,
    _kept: (Folder, [Port; 2]),
}

impl Program {
    async fn start(standard_error: impl Into<Stdio>) -> Self {
        let (port, admin, folder) = (Port::take(), Port::take(), Folder::new());
        let configuration = Configuration::new()
            .first_listener(Listener::at(&port.address().to_string()))
            .set("admin.address", admin.address().to_string());
        let command = command(&folder.write("postern.toml", configuration.to_toml()));
        let child = command.start_with_log(standard_error);
        let (address, client) = (port.address(), Client::new(admin.address()));
        let program = Self { child, address, admin: client, _kept: (folder, [port, admin]) };
        let accepts = async || tokio::net::TcpStream::connect(address).await.is_ok();
        let both = async || accepts().await && tokio::net::TcpStream::connect(program.admin.address).await.is_ok();
        eventually(both).await;
        program
    }

    /// Sends requests that are refused, each of which leaves one line.
    async fn send(&self, requests: usize) {
        let mut all = get(&format!("/{}", "x".repeat(20)), "").repeat(requests - 1);
        all += &get("/", "Connection: close\r\n");
        let answers = raw(self.address, all.as_bytes()).await;
        assert_eq!(answers.matches("HTTP/1.1 404 ").count(), requests);
    }

    /// The lost lines that the metrics count.
    async fn lost(&self) -> u64 {
        let text = String::from_utf8(self.admin.get("/metrics", &[]).await.body.to_vec()).expect("UTF-8");
        let line = text.lines().find_map(|line| line.strip_prefix("postern_log_lines_dropped_total "));
        line.expect("a counter").parse().expect("a number")
    }

    async fn end(mut self) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child.0), rustix::process::Signal::TERM)
            .expect("it runs");
        until(|| self.child.0.try_wait().expect("a child process").is_some()).await;
    }
}

/// A pipe whose writing end does not block, as a Node process leaves it that shares it.
fn non_blocking_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = io::pipe().expect("a pipe");
    let flags = fcntl_getfl(&writer).expect("a pipe");
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).expect("a pipe");
    (reader, writer)
}

/// Fills a pipe, and returns the number of bytes in it.
fn fill(mut pipe: &PipeWriter) -> usize {
    let mut filled = 0;
    loop {
        match pipe.write(b"filled\n") {
            Ok(more) => filled += more,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                return filled;
            }
        }
    }
}

/// Reads all lines until the end, and checks that each one is whole: JSON, or the line of the other writer.
async fn read(mut pipe: PipeReader, other: &str) -> Vec<Value> {
    let text = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).expect("UTF-8");
        text
    });
    let text = within(text).await.expect("no panic");
    leaks::check("the log of a process", &text);
    let lines = text.lines().filter(|line| *line != other);
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"))).collect()
}

fn requests(lines: &[Value]) -> usize {
    lines.iter().filter(|line| line["message"] == "request").count()
}

#[tokio::test]
async fn a_full_pipe_that_does_not_block_tears_no_line() {
    // More than the pipe holds; a pipe that is full already; a handful of lines in an empty one.
    for (sent, is_full) in [(1000, false), (300, true), (5, false)] {
        let (reader, writer) = non_blocking_pipe();
        let program = Program::start(writer.try_clone().expect("a descriptor")).await;
        if is_full {
            fill(&writer);
        }
        program.send(sent).await;
        drop(writer);
        let lines = tokio::spawn(read(reader, "filled"));
        program.end().await;
        assert_eq!(requests(&lines.await.expect("no panic")), sent);
    }
}

#[tokio::test]
async fn lines_of_another_writer_stay_whole_beside_those_of_the_program() {
    let (reader, writer) = non_blocking_pipe();
    let program = Program::start(writer.try_clone().expect("a descriptor")).await;
    let other = std::thread::Builder::new().spawn(move || {
        let mut written = 0;
        while written < 2000 {
            // Bytes up to `PIPE_BUF` are written as a whole or not at all.
            written += usize::from((&writer).write(b"another process\n").is_ok());
        }
    });
    let lines = tokio::spawn(read(reader, "another process"));
    program.send(2000).await;
    other.expect("a thread").join().expect("no panic");
    program.end().await;
    assert_eq!(requests(&lines.await.expect("no panic")), 2000);
}

#[tokio::test]
async fn lines_that_a_full_disk_refuses_are_counted() {
    let full = File::options().write(true).open("/dev/full").expect("it can be opened");
    let program = Program::start(full).await;
    program.send(20).await;
    // Those of the start are lost too: at least that each of the two listeners listens.
    eventually(async || program.lost().await >= 22).await;
    program.end().await;
}

#[tokio::test]
async fn lines_without_a_reader_are_counted() {
    let (reader, writer) = io::pipe().expect("a pipe");
    let program = Program::start(writer).await;
    drop(reader);
    program.send(20).await;
    eventually(async || program.lost().await >= 20).await;
    program.end().await;
}
