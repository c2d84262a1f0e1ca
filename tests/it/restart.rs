//! Real processes that reload, end and take over from each other under load: no connection is refused and no request fails.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use postern::simulator::Simulator;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

use crate::encryption::Folder;
use crate::harness::{EXECUTIONS, KEY, Setup, client_key, configuration, spawn_upstream};
use crate::process::{Port, Process};

/// Where the load connects to.
#[derive(Clone)]
enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Target {
    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        match self {
            Self::Tcp(address) => over(TcpStream::connect(address).await?).await,
            Self::Unix(path) => over(UnixStream::connect(path).await?).await,
        }
    }
}

async fn over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Callers who ask without a pause. Half of them keep their connection until they are told that it ends, the others use a
/// new one for each request.
struct Load {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    callers: Vec<JoinHandle<Result<(), Failure>>>,
}

impl Load {
    fn start(target: &Target) -> Self {
        let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let callers = (0..8).map(|number| {
            let (over, answered, target) = (Arc::clone(&over), Arc::clone(&answered), target.clone());
            tokio::spawn(async move {
                let mut kept = None;
                while !over.load(Ordering::SeqCst) {
                    let mut sender = match kept.take() {
                        Some(sender) => sender,
                        None => target.connect().await?,
                    };
                    let account = format!("acme-{}", number % 3 + 1);
                    let request = Request::get(EXECUTIONS).header("host", "a").header("x-api-key", KEY);
                    let request = request.header("linked_account_id", account).body(Full::default())?;
                    sender.ready().await?;
                    let answer = sender.send_request(request).await?;
                    let (status, last) = (answer.status(), answer.headers().contains_key("connection"));
                    answer.into_body().collect().await?;
                    if !status.is_success() {
                        return Err(format!("it was answered {status}").into());
                    }
                    answered.fetch_add(1, Ordering::SeqCst);
                    kept = (number % 2 == 0 && !last).then_some(sender);
                }
                Ok(())
            })
        });
        let callers = callers.collect();
        Self { over, answered, callers }
    }

    /// Waits for some more answers.
    async fn some(&self) {
        let enough = self.answered.load(Ordering::SeqCst) + 200;
        while self.answered.load(Ordering::SeqCst) < enough && !self.callers.iter().any(JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends it; not one request has failed.
    async fn finish(self) {
        self.over.store(true, Ordering::SeqCst);
        for caller in self.callers {
            caller.await.expect("it ran").unwrap_or_else(|error| panic!("a request has failed: {error}"));
        }
    }
}

/// A simulated Refold, and a configuration of a gateway in front of it.
async fn world(listener: &str) -> String {
    let Setup { settings, top, tenant, .. } = Setup::default();
    let refold = Simulator::new(settings, postern::clock::Clock::system());
    let upstream = spawn_upstream(|listener| async move {
        let _ = refold.serve(listener).await;
    })
    .await;
    configuration(upstream, &top, &tenant)
        .replace("address = \"127.0.0.1:0\"\nsession_tokens = \"t\"", listener)
        .replace("drain_timeout = \"200ms\"", "drain_timeout = \"10s\"")
}

/// Puts a file into place whole, as every careful writer does.
fn install(folder: &Folder, text: &str) -> PathBuf {
    let (fresh, path) = (folder.path().join("fresh"), folder.path().join("postern.toml"));
    std::fs::write(&fresh, text).expect("a temporary file");
    std::fs::rename(fresh, &path).expect("it is replaced");
    path
}

#[tokio::test]
async fn processes_take_over_from_each_other_on_a_port_and_no_request_fails() {
    let (folder, port) = (Folder::new("takeover-port"), Port::take());
    let file = install(&folder, &world(&format!("address = \"{}\"", port.address())).await);
    let mut present = Process::serve(&file).await;
    let load = Load::start(&Target::Tcp(port.address()));
    for _ in 0..3 {
        load.some().await;
        let next = Process::serve(&file).await;
        load.some().await;
        present.signal("TERM");
        assert_eq!(present.ended().await.code(), Some(0));
        present = next;
    }
    load.some().await;
    load.finish().await;
}

#[tokio::test]
async fn processes_take_over_from_each_other_at_a_unix_path_and_no_request_fails() {
    let folder = Folder::new("takeover-path");
    let path = folder.path().join("postern.sock");
    let file = install(&folder, &world(&format!("address = \"unix:{}\"", path.display())).await);
    let mut present = Process::serve(&file).await;
    let load = Load::start(&Target::Unix(path.clone()));
    for _ in 0..3 {
        load.some().await;
        let next = Process::serve(&file).await;
        present.signal("TERM");
        assert_eq!(present.ended().await.code(), Some(0));
        assert!(path.exists(), "it is the next one's");
        present = next;
    }
    load.some().await;
    load.finish().await;
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("it is there").collect();
    assert_eq!(left.len(), 2, "the socket and the file: {left:?}");
}

#[tokio::test]
async fn ten_reloads_under_load_fail_no_request_and_a_broken_file_changes_nothing() {
    let (folder, port) = (Folder::new("ten-reloads"), Port::take());
    let text = world(&format!("address = \"{}\"", port.address())).await;
    let file = install(&folder, &text);
    let process = Process::serve(&file).await;
    let load = Load::start(&Target::Tcp(port.address()));
    for reload in 1..=10 {
        load.some().await;
        let changed = match reload % 3 {
            0 => text.clone(),
            1 => text.replace("[upstream]\n", "[upstream]\nconnect_timeout = \"3s\"\n"),
            _ => text.clone() + &client_key("more", "pst_more", "linked_accounts = [\"*\"]"),
        };
        install(&folder, &changed);
        process.signal("HUP");
        process.until_logged("\"config_reloaded\"", reload).await;
    }
    load.some().await;
    let told = process.logged("config_reloaded");
    assert!(told[0].contains("\"changes\":\"upstream.connect_timeout: (left out) -> \\\"3s\\\"\""), "{}", told[0]);
    assert!(told[1].contains("tenants.t.client_keys.more.sha256: changed"), "{}", told[1]);
    // Without a signal: the file alone.
    install(&folder, &text.replace("[upstream]", "[upstreams]"));
    process.until_logged("config_refused", 1).await;
    let refused = process.logged("config_refused").remove(0);
    let line = text.lines().position(|line| line == "[upstream]").expect("it is there") + 1;
    let place = format!("{}:{line}:2: unknown key `upstreams`; did you mean `upstream`?", file.display());
    assert!(refused.contains(&place), "{refused}");
    load.some().await;
    install(&folder, &text.replace("drain_timeout = \"10s\"", "drain_timeout = \"9s\""));
    process.until_logged("config_reloaded", 11).await;
    let told = process.logged("config_reloaded").pop().expect("it was logged");
    assert!(told.contains("server.drain_timeout: \\\"10s\\\" -> \\\"9s\\\""), "{told}");
    load.some().await;
    load.finish().await;
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
}

/// Has the program run with a socket as a service manager would pass it.
fn activated(configuration: &Path, socket: OwnedFd) -> Command {
    let serve = Process::command(configuration);
    let mut shell = Command::new("sh");
    // The process id stays the same over `exec`.
    shell.args(["-c", "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec \"$@\"", "sh"]);
    shell.arg(serve.get_program()).args(serve.get_args());
    shell.envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.stdin(Stdio::from(socket));
    shell
}

#[tokio::test]
async fn a_socket_that_the_process_is_started_with_is_served_and_outlives_it() {
    let folder = Folder::new("activated");
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("it is bound");
    let text = world(&format!("address = \"{address}\"")).await;
    let file = install(&folder, &text);
    let pass = || OwnedFd::from(socket.try_clone().expect("another handle"));
    let target = Target::Tcp(address);
    let load = Load::start(&target);
    for _ in 0..2 {
        // The load waits in the queue until somebody is there.
        let process = Process::run(activated(&file, pass())).await;
        load.some().await;
        process.signal("TERM");
        assert_eq!(process.ended().await.code(), Some(0));
    }
    let _last = Process::run(activated(&file, pass())).await;
    load.some().await;
    load.finish().await;
    // Nobody can have meant a socket that no listener is for.
    let other = install(&folder, &text.replace(&address.to_string(), "127.0.0.1:0"));
    let refused = activated(&other, pass()).output().expect("it runs");
    assert!(!refused.status.success());
    let expected = format!("started with the socket `web` on {address}, and no listener has that address");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains(&expected), "{said}");
}

#[tokio::test]
async fn a_service_manager_is_told_what_the_process_does() {
    let folder = Folder::new("notify");
    let manager = UnixDatagram::bind(folder.path().join("notify.sock")).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let told = || {
        let mut text = [0; 256];
        let length = manager.recv(&mut text).expect("it is told");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let file = install(&folder, &world("address = \"127.0.0.1:0\"").await);
    let mut command = Process::command(&file);
    command.env("NOTIFY_SOCKET", folder.path().join("notify.sock"));
    let process = Process::run(command).await;
    assert_eq!(told(), "READY=1\n");
    process.signal("HUP");
    let reloading = told();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(told(), "READY=1\n");
    process.signal("TERM");
    assert_eq!(told(), "STOPPING=1\n");
    assert_eq!(process.ended().await.code(), Some(0));
}
