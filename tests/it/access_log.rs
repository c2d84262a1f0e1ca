//! One line for each request, on the standard error of the program itself.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::encryption::Folder;
use crate::harness::{EXECUTIONS, KEY, ORG_KEY, Setup, configuration, http_upstream, page_of, spawn_upstream};

/// The program, and what it writes to standard error.
struct Program {
    child: Child,
    lines: Box<dyn Iterator<Item = Value> + Send>,
    address: String,
    _folder: Folder,
}

impl Program {
    fn start(upstream: SocketAddr, lines: &str, directives: Option<&str>) -> Self {
        let Setup { top, tenant, .. } = Setup::default();
        let folder = Folder::new(&format!("access-log-{}", fastrand::u64(..)));
        let file = folder.path().join("postern.toml");
        std::fs::write(&file, configuration(upstream, &format!("{top}{lines}"), &tenant)).expect("a temporary file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
        command.args(["serve", "--config", file.to_str().expect("UTF-8")]).env("ORG_KEY", ORG_KEY);
        command.env_remove("POSTERN_LOG").stderr(Stdio::piped());
        if let Some(directives) = directives {
            command.env("POSTERN_LOG", directives);
        }
        let mut child = command.spawn().expect("it runs");
        let read = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let mut lines = read.map(|line| serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")));
        let ready: Value = lines.by_ref().find(|line: &Value| line["message"] == "listening").expect("it listens");
        let address = ready["address"].as_str().expect("an address").to_owned();
        Self { child, lines: Box::new(lines), address, _folder: folder }
    }

    /// Asks, and reads the whole answer.
    fn ask(&self, target: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        write!(stream, "GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n").expect("it reads");
        std::io::read_to_string(stream).expect("it answers")
    }

    fn ask_as(&self, account: &str, query: &str) -> String {
        self.ask(&format!("{EXECUTIONS}{query}"), &format!("x-api-key: {KEY}\r\nlinked_account_id: {account}\r\n"))
    }

    /// Ends it; the lines of requests that it has written.
    fn end(mut self) -> Vec<Value> {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill runs");
        assert!(killed.success());
        let mut requests: Vec<Value> = self.lines.filter(|line| line["message"] == "request").collect();
        // Two workers answer, and what they have to say within a moment may change places.
        requests.sort_by_key(|line| line["timestamp"].as_str().map(str::to_owned));
        assert!(self.child.wait().expect("it ends").success());
        requests
    }
}

async fn upstream() -> SocketAddr {
    http_upstream(|_| async { page_of(&json!({ "_id": "1", "status": "COMPLETED" })) }).await
}

/// Runs what blocks, while the upstream goes on.
async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(run).await.expect("it ends")
}

#[tokio::test]
async fn each_request_leaves_one_line_that_says_what_became_of_it() {
    let upstream = upstream().await;
    let (answers, lines) = blocking(move || {
        let program = Program::start(upstream, "", None);
        let answers = [
            program.ask_as("acme-1", "?status=errored&page=01"),
            program.ask_as("acme-1", "?page=1&status=ERRORED"),
            program.ask_as("a\"b\\é", "?limit=0"),
            program.ask(EXECUTIONS, "authorization: Bearer a-session-token\r\n"),
            program.ask("/secret-path?secret=query", ""),
            program.ask(EXECUTIONS, &format!("x-api-key: {KEY}\r\n")),
        ];
        (answers, program.end())
    })
    .await;
    assert_eq!(lines.len(), answers.len(), "{lines:#?}");
    for (line, answer) in lines.iter().zip(&answers) {
        let id = answer.split("x-request-id: ").nth(1).and_then(|rest| rest.get(..36));
        assert_eq!(line["request_id"].as_str(), id);
        let moment: jiff::Timestamp = line["timestamp"].as_str().expect("a text").parse().expect("a timestamp");
        assert!(moment > jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(
            (&line["level"], &line["target"], &line["method"]),
            (&json!("INFO"), &json!("postern::access"), &json!("GET"))
        );
        assert!(line["duration_us"].is_u64());
    }
    let known = |line: &Value| {
        [&line["tenant"], &line["caller"], &line["linked_account"], &line["endpoint"], &line["query"]].map(Value::clone)
    };
    let query = format!("{EXECUTIONS}?page=1&limit=10&status=ERRORED");
    for (line, cache) in [(&lines[0], "miss"), (&lines[1], "hit")] {
        assert_eq!(known(line), [json!("t"), json!("all"), json!("acme-1"), json!("list"), json!(query)]);
        assert_eq!((&line["status"], &line["cache"], &line["age_s"]), (&json!(200), &json!(cache), &json!(0)));
        assert_eq!(line["upstream_us"].is_u64(), cache == "miss");
        assert!(line.get("error_code").is_none());
    }
    assert_eq!(known(&lines[2]), [json!("t"), json!("all"), json!("a\"b\\é"), json!("list"), Value::Null]);
    assert_eq!((&lines[2]["status"], &lines[2]["error_code"]), (&json!(400), &json!("INVALID_PARAMETER")));
    // A session token does not show whose it is.
    assert_eq!(known(&lines[3])[..3], [json!("t"), json!("session token"), Value::Null]);
    assert_eq!(known(&lines[4]), [Value::Null, Value::Null, Value::Null, json!("other"), Value::Null]);
    // Refused, and it is known whom.
    assert_eq!(known(&lines[5])[..4], [json!("t"), json!("all"), Value::Null, json!("list")]);
    assert_eq!(lines[5]["status"], json!(400));
    let text = format!("{lines:?}");
    for secret in [KEY, ORG_KEY, "a-session-token", "secret"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn the_cause_of_an_error_is_logged_and_not_sent() {
    let broken = spawn_upstream(|listener| async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // The whole request is read first: unread bytes would reset the connection, and it would count as unreachable.
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.expect("the request has a head"));
            }
            stream.write_all(b"this is not HTTP\r\n\r\n").await.expect("the gateway reads");
        }
    })
    .await;
    // No server listens on port 9 (discard) of this loopback address.
    let unreachable = SocketAddr::from(([127, 255, 255, 254], 9));
    for (upstream, code) in [(broken, "UPSTREAM_INVALID_RESPONSE"), (unreachable, "UPSTREAM_UNREACHABLE")] {
        let (answer, lines) = blocking(move || {
            let program = Program::start(upstream, "", None);
            (program.ask_as("acme-1", ""), program.end())
        })
        .await;
        assert_eq!((&lines[0]["status"], &lines[0]["error_code"]), (&json!(502), &json!(code)), "{lines:?}");
        let cause = lines[0]["cause"].as_str().expect("the line has a cause");
        assert!(!cause.is_empty());
        let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).expect("a body")).expect("JSON");
        let fields: Vec<_> = body.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(fields, ["error_code", "http_error_type", "message", "request_id", "status_code"]);
        assert!(!answer.contains(cause), "{cause} in {answer}");
    }
}

#[tokio::test]
async fn linked_accounts_can_be_hashed_or_left_out() {
    let upstream = upstream().await;
    let digest = postern::digest::sha256(b"acme-1");
    let digits = postern::digest::Hex(&digest[..8]).to_string();
    for (shown, expected) in [("hashed", Some(json!(digits))), ("none", None)] {
        let lines = blocking(move || {
            let program = Program::start(upstream, &format!("[log]\nlinked_accounts = \"{shown}\"\n"), None);
            program.ask_as("acme-1", "");
            program.end()
        })
        .await;
        assert_eq!(lines[0].get("linked_account"), expected.as_ref());
        assert!(!lines[0].to_string().contains("acme-1"), "{lines:?}");
    }
}

#[tokio::test]
async fn fewer_requests_can_be_logged_by_setting_and_by_directive() {
    let upstream = upstream().await;
    for (settings, directives, statuses) in [
        ("sample = 0", None, vec![400]),
        ("requests = \"errors\"", None, vec![400]),
        ("requests = \"none\"", None, vec![]),
        ("requests = \"all\"", Some("info,postern::access=off"), vec![]),
    ] {
        let lines = blocking(move || {
            let program = Program::start(upstream, &format!("[log]\n{settings}\n"), directives);
            program.ask_as("acme-1", "");
            program.ask_as("acme-1", "?limit=0");
            program.end()
        })
        .await;
        let logged: Vec<_> = lines.iter().filter_map(|line| line["status"].as_u64()).collect();
        assert_eq!(logged, statuses, "{settings} {directives:?}");
    }
}
