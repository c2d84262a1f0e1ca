//! The program as it is typed.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use crate::harness::{EXECUTIONS, client_key};

fn postern() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
    command.env_remove("POSTERN_CONFIG").env("ORG_KEY", "tk_x");
    command
}

fn run(arguments: &[&str]) -> Output {
    postern().args(arguments).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("postern-cli-{}-{name}", std::process::id()));
        std::fs::write(&path, content).expect("a temporary file");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn postern_alone_answers_the_request_that_it_prints() {
    let mut child = Running(
        postern()
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs"),
    );
    let mut lines = BufReader::new(child.0.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let after = |line: String, mark: &str| line.split(mark).nth(1).map(str::to_owned);
    let curl: Vec<String> = lines.by_ref().skip_while(|line| !line.contains("curl")).take(3).collect();
    let url = after(curl[0].clone(), "'").expect("a quoted URL");
    let key = after(curl[1].clone(), "x-api-key: ").expect("a key").trim_end_matches(['\'', '\\', ' ']).to_owned();
    let account = after(curl[2].clone(), "linked_account_id: ").expect("an account").replace('\'', "");
    let (address, target) = url.trim_start_matches("http://").split_once('/').expect("a path");
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    let request = format!(
        "GET /{target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nx-api-key: {key}\r\nlinked_account_id: {account}\r\n\r\n"
    );
    std::io::Write::write_all(&mut stream, request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"totalDocs\":"), "{answer}");
    let page = lines.find_map(|line| after(line, "explorer: http://")).expect("where the status page is");
    let admin = page.trim_end_matches('/');
    for arguments in
        [vec!["health", address], vec!["health", "--admin", admin], vec!["health", "--admin", admin, "--ready"]]
    {
        let health = run(&arguments);
        assert!(health.status.success(), "{arguments:?}: {}", text(&health.stderr));
    }
    for arguments in [["health", admin].as_slice(), &["health", "--admin", address]] {
        let health = run(arguments);
        assert!(!health.status.success() && text(&health.stderr).contains("does not answer"), "{arguments:?}");
    }
}

#[test]
fn explain_shows_the_canonical_form_in_both_dialects() {
    let output =
        run(&["explain", &format!("{EXECUTIONS}?status=errored&execution_source=api-call"), "--tenant", "acme"]);
    assert!(output.status.success());
    let out = text(&output.stdout);
    assert!(
        out.contains(
            "documented  GET /api/v2/public/execution?page=1&limit=10&status=ERRORED&execution_source=API%20Call\n"
        ),
        "{out}"
    );
    assert!(
        out.contains(
            "v3          GET /api/v2/public/execution?page=1&limit=10&status=ERRORED&execution_source=API_CALL\n"
        ),
        "{out}"
    );
    assert!(out.contains("cache key   acme | "), "{out}");
    let wrong = run(&["explain", "stats=ERRORED"]);
    assert!(!wrong.status.success());
    assert!(text(&wrong.stderr).contains("did you mean `status`?"), "{}", text(&wrong.stderr));
}

#[test]
fn keygen_prints_lines_that_a_configuration_takes() {
    let lines = text(&run(&["keygen", "--name", "a \"quoted\" name", "--linked-account", "acme-*", "--write"]).stdout);
    let again = text(&run(&["keygen"]).stdout);
    assert_ne!(lines, again);
    let key = lines.split_whitespace().find(|word| word.starts_with("pst_")).expect("a key").to_owned();
    let settings: String =
        lines.lines().filter(|line| !line.starts_with('#')).fold(String::new(), |all, line| all + line + "\n");
    let digest = postern::digest::sha256(key.as_bytes());
    assert!(settings.contains(&postern::digest::Hex(&digest).to_string()), "{settings}");
    let tenant = "[[tenants]]\nid = \"a\"\nmode = \"inject\"\norg_key = { env = \"ORG_KEY\" }\n";
    let file = Scratch::new("keygen.toml", &format!("{tenant}{settings}"));
    let check = run(&["check", "--config", file.path()]);
    assert!(check.status.success(), "{}", text(&check.stderr));
    assert!(text(&check.stdout).contains("tenants 1, client keys 1"));
    // An example that was put in as it is.
    let example = settings.replace(&postern::digest::Hex(&digest).to_string(), &"0".repeat(64));
    let file = Scratch::new("example.toml", &format!("{tenant}{example}"));
    let check = run(&["check", "--config", file.path()]);
    assert!(!check.status.success());
    assert!(text(&check.stderr).contains("a client key of tenant `a` is an example"), "{}", text(&check.stderr));
}

#[test]
fn check_and_serve_refuse_a_wrong_file_with_its_place() {
    let file = Scratch::new("wrong.toml", "[server]\nworkerz = 1\n");
    for command in ["check", "serve"] {
        let output = run(&[command, "--config", file.path()]);
        assert!(!output.status.success());
        let expected = format!("{}:2:1: unknown key `workerz`; did you mean `workers`?", file.path());
        assert!(text(&output.stderr).contains(&expected), "{}", text(&output.stderr));
    }
}

#[test]
fn serve_refuses_directives_for_the_log_that_are_none() {
    let file = Scratch::new("directives.toml", "");
    let output = postern().args(["serve", "--config", file.path()]).env("POSTERN_LOG", "postern=loud").output();
    let output = output.expect("it runs");
    assert!(!output.status.success());
    assert!(text(&output.stderr).starts_with("postern: POSTERN_LOG: "), "{}", text(&output.stderr));
}

#[test]
fn serve_ends_with_0_when_it_is_told_to() {
    let tenant = "[[tenants]]\nid = \"a\"\nmode = \"inject\"\norg_key = { env = \"ORG_KEY\" }\n";
    let key = client_key("k", "pst_k", "linked_accounts = [\"*\"]");
    let socket = Scratch::new("serve.sock", "");
    std::fs::remove_file(socket.path()).expect("it is ours");
    let listeners = format!("[[listeners]]\naddress = \"unix:{}\"\n[admin]\naddress = \"off\"\n", socket.path());
    let file = Scratch::new("serve.toml", &format!("{listeners}{tenant}{key}"));
    let mut child = postern().args(["serve", "--config", file.path()]).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut log = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
    assert!(log.by_ref().any(|line| line.contains("listening")));
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
    assert!(status.success());
    let rest: Vec<String> = log.collect();
    assert!(rest.iter().any(|line| line.contains("stopped")), "{rest:?}");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let help = text(&run(&["--help"]).stdout);
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .map_while(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.contains(&"serve") && commands.contains(&"man"), "{help}");
    let folder = std::env::temp_dir().join(format!("postern-man-{}", std::process::id()));
    let written = run(&["man", "--directory", folder.to_str().expect("UTF-8")]);
    assert!(written.status.success(), "{}", text(&written.stderr));
    let page = text(&run(&["man"]).stdout);
    let scripts = ["bash", "zsh", "fish"].map(|shell| text(&run(&["completions", shell]).stdout));
    for command in commands {
        assert!(page.contains(&format!("postern\\-{command}(1)")), "{command}: {page}");
        let own = std::fs::read_to_string(folder.join(format!("postern-{command}.1"))).expect("a page of its own");
        assert!(own.starts_with(".ie") && own.contains(".SH SYNOPSIS"), "{own}");
        for script in &scripts {
            assert!(script.contains(command), "{command}: {script}");
        }
    }
    std::fs::remove_dir_all(&folder).expect("it is ours");
    assert!(!run(&["completions", "cmd.exe"]).status.success());
}

#[test]
fn whoami_explains_what_a_credential_may_do_and_why_not() {
    let tenant = "[[tenants]]\nid = \"acme\"\nmode = \"inject\"\norg_key = { env = \"ORG_KEY\" }\n";
    let keys = client_key("dashboards", "pst_dash", "linked_accounts = [\"acme-*\"]")
        + &client_key("old", "pst_old", "linked_accounts = [\"*\"]\nexpires = 2020-01-01");
    let file = Scratch::new("whoami.toml", &format!("{tenant}{keys}"));
    let ask = |credential: &str, more: &[&str]| {
        let arguments = [&["whoami", "--config", file.path()], more].concat();
        let mut child =
            postern().args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
        let mut input = child.stdin.take().expect("piped");
        std::io::Write::write_all(&mut input, credential.as_bytes()).expect("it reads");
        drop(input);
        text(&child.wait_with_output().expect("it ends").stdout)
    };
    let good = ask("pst_dash\n", &["--linked-account", "acme-1"]);
    for line in [
        "name            dashboards",
        "tenant          acme",
        "linked accounts acme-*",
        "this request    acme-1",
        "access          read",
    ] {
        assert!(good.contains(line), "{good}");
    }
    assert!(!good.contains("pst_dash"), "it is not echoed: {good}");
    for (credential, more, why) in [
        ("pst_dash", ["--linked-account", "globex"].as_slice(), "this key is not for that linked account"),
        ("pst_dash", &[], "linked_account_id or org_id is required"),
        ("pst_old", &["--linked-account", "a"], "this key has expired"),
        ("pst_none", &["--linked-account", "a"], "none of the 2 client keys has the SHA-256"),
        ("", &["--linked-account", "a"], "there is no credential"),
        ("a.b.c", &["--bearer"], "does not accept session tokens"),
    ] {
        let answer = ask(credential, more);
        assert!(answer.contains("refused") && answer.contains(why), "{credential}: {answer}");
    }
}
