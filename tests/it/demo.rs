//! The demo: its output leads to responses, faults and the status page.

use std::io::Read;

use crate::support::connection::{get, raw};
use crate::support::{Configuration, Folder, Printing, leaks, postern, run_to_end, within};

/// A running demo and its output up to the last line.
struct Demo {
    _process: Printing,
    output: String,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let mut command = postern();
        let mut process = command.arg("demo").args(arguments).start_printing();
        let mut output = String::new();
        while let Some(line) = process.next_line() {
            output.push_str(&line);
            output.push('\n');
            if line.starts_with("Ctrl-C") {
                break;
            }
        }
        Self { _process: process, output }
    }

    /// The text between two marks, after the first line with a third.
    fn between(&self, line: &str, start: &str, end: &str) -> &str {
        let rest = self.output.split_once(line).unwrap_or_else(|| panic!("{line}: {}", self.output)).1;
        let rest = rest.split_once(start).unwrap_or_else(|| panic!("{start}: {rest}")).1;
        rest.split_once(end).unwrap_or_else(|| panic!("{end}: {rest}")).0
    }

    /// Sends the first request that the demo prints, with another query.
    async fn list(&self, query: &str) -> String {
        let url = self.between("A page of executions", "'http://", "'");
        let key = self.between("A page of executions", "x-api-key: ", "'");
        let account = self.between("A page of executions", "linked_account_id: ", "'");
        let (address, target) = url.split_once('/').expect("a path");
        let path = target.split('?').next().expect("a path");
        let query = if query.is_empty() { target.to_owned() } else { format!("{path}?{query}") };
        let fields = format!("Connection: close\r\nx-api-key: {key}\r\nlinked_account_id: {account}\r\n");
        send(address, &get(&format!("/{query}"), &fields)).await
    }

    /// Runs one of the printed commands that make Refold fail.
    async fn break_refold(&self, fault: &str) {
        let address = self.between("Make the simulated Refold fail", "-X POST http://", "/");
        assert!(self.output.contains(&format!("curl -X POST http://{address}/simulate/{fault}\n")), "{}", self.output);
        let request = format!("POST /simulate/{fault} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        assert!(send(address, &request).await.starts_with("HTTP/1.1 2"));
    }
}

async fn send(address: &str, request: &str) -> String {
    within(raw(address.parse().expect("an address"), request.as_bytes())).await
}

#[tokio::test]
async fn the_demo_answers_the_request_that_it_prints() {
    let demo = Demo::start(&["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let answer = demo.list("").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"totalDocs\":"), "{answer}");
    let address = demo.between("Postern listens on", "http://", ",");
    let admin = demo.between("Status page and explorer", "http://", "/");
    for arguments in
        [vec!["health", address], vec!["health", "--admin", admin], vec!["health", "--admin", admin, "--ready"]]
    {
        let health = run_to_end(postern().args(&arguments));
        assert!(health.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&health.stderr));
    }
    for arguments in [["health", admin].as_slice(), &["health", "--admin", address]] {
        let health = run_to_end(postern().args(arguments));
        let error = String::from_utf8_lossy(&health.stderr);
        assert!(!health.status.success() && error.contains("does not answer"), "{arguments:?}: {error}");
    }
}

#[tokio::test]
async fn the_simulated_refold_breaks_as_the_demo_says() {
    let demo = Demo::start(&["--listen", "127.0.0.1:0", "--admin", "off"]);
    assert!(!demo.output.contains("Status page"), "{}", demo.output);
    demo.break_refold("status=503").await;
    let broken = demo.list("page=2").await;
    assert!(broken.starts_with("HTTP/1.1 503"), "{broken}");
    demo.break_refold("none").await;
    assert!(demo.list("page=3").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_demo_for_other_hosts_protects_its_status_page() {
    for (arguments, token) in [
        (["--listen", "0.0.0.0:0", "--admin", "0.0.0.0:0"].as_slice(), None),
        (&["--listen", "[::]:0", "--admin", "127.0.0.1:0", "--admin-token", "it's-a-token"], Some("it's-a-token")),
        (&["--listen", "0.0.0.0:0", "--admin", "0.0.0.0:0", "--admin-token", "t"], Some("t")),
    ] {
        let demo = Demo::start(arguments);
        assert!(demo.list("").await.starts_with("HTTP/1.1 200"), "{}", demo.output);
        let admin = demo.between("Status page and explorer", "http://", "/");
        let printed = demo.between("Status page and explorer", "Its token: ", "\n");
        assert!(token.is_none_or(|token| token == printed), "{printed}");
        let anonymous = send(admin, &get("/status", "Connection: close\r\n")).await;
        assert!(anonymous.starts_with("HTTP/1.1 401"), "{anonymous}");
        let fields = format!("Connection: close\r\nAuthorization: Bearer {printed}\r\n");
        assert!(send(admin, &get("/status", &fields)).await.starts_with("HTTP/1.1 200"), "{arguments:?}");
    }
}

#[test]
fn a_demo_never_shares_a_port() {
    for (listen, admin) in
        [("127.0.0.1:1", "127.0.0.1:1"), ("0.0.0.0:1", "127.0.0.1:1"), ("127.0.0.1:1", "[::]:1"), ("[::]:1", "[::1]:1")]
    {
        let output = run_to_end(postern().args(["demo", "--listen", listen, "--admin", admin]));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{listen} {admin}");
        assert!(error.contains(&format!("--listen {listen} and --admin {admin} share a port")), "{error}");
    }
    for (arguments, expected) in [
        (["--admin", "off", "--admin-token", "t"], "--admin-token has no effect"),
        (["--admin", "nowhere", "--listen", "127.0.0.1:0"], "write an IP address and a port, or `off`"),
        (["--listen", "127.0.0.1:0", "--admin-token", "a b"], "printable ASCII"),
    ] {
        let output = run_to_end(postern().arg("demo").args(arguments));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(expected), "{arguments:?}: {error}");
    }
}

/// Reads the log of a gateway whose standard error is a terminal, until it listens.
fn log_on_a_terminal(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&terminal).and_then(|()| unlockpt(&terminal)).expect("it is ours");
    let name = ptsname(&terminal, Vec::new()).expect("it has a name").into_string().expect("UTF-8");
    let other_end = std::fs::File::options().read(true).write(true).open(name).expect("the other end");
    let folder = Folder::new();
    let mut command = postern();
    command.args(["serve", "--config"]).arg(folder.write("postern.toml", Configuration::new().to_toml()));
    command.args(arguments).env_remove("NO_COLOR").envs(environment.iter().copied());
    let _process = command.start_with_log(other_end);
    let mut reader = std::fs::File::from(terminal);
    let (mut log, mut piece) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&log).contains("listening") || log.last() != Some(&b'\n') {
        let read = reader.read(&mut piece).expect("the process lives");
        log.extend_from_slice(&piece[..read]);
    }
    let log = String::from_utf8_lossy(&log).into_owned();
    leaks::check("the log on a terminal", &log);
    log
}

#[test]
fn the_log_on_a_terminal_is_text_in_colours() {
    let coloured = log_on_a_terminal(&[], &[]);
    assert!(coloured.contains("\u{1b}[32mINFO ") && !coloured.contains("{\""), "{coloured}");
    for (arguments, environment) in
        [([].as_slice(), [("NO_COLOR", "1")].as_slice()), (&["--log-format", "text"], &[("NO_COLOR", "yes")])]
    {
        let plain = log_on_a_terminal(arguments, environment);
        assert!(plain.contains(" INFO  listening address=127.0.0.1:") && !plain.contains('\u{1b}'), "{plain}");
    }
    let json = log_on_a_terminal(&["--log-format", "json"], &[]);
    assert!(json.lines().all(|line| line.starts_with("{\"")), "{json}");
}
