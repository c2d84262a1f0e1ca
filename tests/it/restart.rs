//! Processes that reload, end and take over from each other under load: no connection is refused and no request fails.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use postern::clock::Clock;
use postern::simulator::{Simulator, SimulatorSettings};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

use crate::support::leaks::Watched;
use crate::support::{
    ClientKey, Configuration, EXECUTIONS, Failure, Folder, KEY, Listener, ORG_KEY, Port, Process, activated_command,
    command, run_to_end, spawn_upstream, until,
};

/// The address that the load connects to.
#[derive(Clone)]
enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

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
    let (sender, connection) = handshake(TokioIo::new(Watched::new(stream))).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Callers that send requests without a pause. Half of them keep their connection until a response announces its end, the
/// others open one for each request.
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
                        return Err(format!("the answer was {status}").into());
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

    /// Waits for 200 more answers, or for a failure.
    async fn some(&self) {
        let enough = self.answered.load(Ordering::SeqCst) + 200;
        let is_over = || self.callers.iter().any(JoinHandle::is_finished);
        until(|| self.answered.load(Ordering::SeqCst) >= enough || is_over()).await;
    }

    /// Ends the load; panics if a request has failed.
    async fn finish(self) {
        self.over.store(true, Ordering::SeqCst);
        for caller in self.callers {
            caller.await.expect("no panic").unwrap_or_else(|error| panic!("a request has failed: {error}"));
        }
    }
}

/// A configuration in front of a simulated Refold.
async fn configuration(listener: Listener) -> Configuration {
    let settings = SimulatorSettings { org_keys: vec![ORG_KEY.to_owned()], rate: None, ..SimulatorSettings::default() };
    let refold = Simulator::new(settings, Clock::system());
    let upstream = spawn_upstream(|listener| async move {
        let _ = refold.serve(listener).await;
    })
    .await;
    Configuration::new().upstream(upstream).drain_timeout("10s").listeners([listener])
}

fn install(folder: &Folder, configuration: &Configuration) -> PathBuf {
    folder.write("postern.toml", configuration.to_toml())
}

#[tokio::test]
async fn processes_hand_over_a_port_and_no_request_fails() {
    let (folder, port) = (Folder::new(), Port::take());
    let file = install(&folder, &configuration(Listener::at(&port.address().to_string())).await);
    let mut present = Process::serve(&file).await;
    let load = Load::start(&Target::Tcp(port.address()));
    for _ in 0..3 {
        load.some().await;
        let next = Process::take_over(&file).await;
        load.some().await;
        assert_eq!(present.terminate().await.status.code(), Some(0));
        present = next;
    }
    load.some().await;
    load.finish().await;
}

#[tokio::test]
async fn processes_hand_over_a_unix_socket_and_no_request_fails() {
    let folder = Folder::new();
    let path = folder.join("postern.sock");
    let file = install(&folder, &configuration(Listener::unix(&path)).await);
    let mut present = Process::serve(&file).await;
    let load = Load::start(&Target::Unix(path.clone()));
    for _ in 0..3 {
        load.some().await;
        let next = Process::take_over(&file).await;
        assert_eq!(present.terminate().await.status.code(), Some(0));
        assert!(path.exists(), "the socket belongs to the next process");
        present = next;
    }
    load.some().await;
    load.finish().await;
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("the folder is there").collect();
    assert_eq!(left.len(), 2, "the socket and the file: {left:?}");
}

#[tokio::test]
async fn ten_reloads_under_load_fail_no_request() {
    let (folder, port) = (Folder::new(), Port::take());
    let config = configuration(Listener::at(&port.address().to_string())).await;
    let mut process = Process::serve(&install(&folder, &config)).await;
    let load = Load::start(&Target::Tcp(port.address()));
    for reload in 1..=10 {
        load.some().await;
        let config = config.clone();
        let changed = match reload % 3 {
            0 => config,
            1 => config.set("upstream.connect_timeout", "3s"),
            _ => config.tenant(|tenant| tenant.client_key(ClientKey::new("more", "pst_more"))),
        };
        install(&folder, &changed);
        process.signal("HUP");
        process.until_logged("\"config_reloaded\"", reload).await;
    }
    load.some().await;
    let reloads = process.logged("config_reloaded");
    let change = "\"changes\":\"upstream.connect_timeout: (left out) -> \\\"3s\\\"\"";
    assert!(reloads[0].contains(change), "{}", reloads[0]);
    assert!(reloads[1].contains("tenants.t.client_keys.more.sha256: changed"), "{}", reloads[1]);
    load.finish().await;
    assert_eq!(process.terminate().await.status.code(), Some(0));
}

#[tokio::test]
async fn a_changed_file_is_reloaded_and_a_broken_one_refused() {
    let (folder, port) = (Folder::new(), Port::take());
    let config = configuration(Listener::at(&port.address().to_string())).await;
    let file = install(&folder, &config);
    let mut process = Process::serve(&file).await;
    let load = Load::start(&Target::Tcp(port.address()));
    load.some().await;
    // Without a signal: the change of the file is enough.
    let broken = config.clone().without("upstream").toml("[upstreams]\nretries = 0\n");
    install(&folder, &broken);
    process.until_logged("config_refused", 1).await;
    let refused = process.logged("config_refused").remove(0);
    let line = broken.to_toml().lines().position(|line| line == "[upstreams]").expect("the table is there") + 1;
    let place = format!("{}:{line}:2: unknown key `upstreams`; did you mean `upstream`?", file.display());
    assert!(refused.contains(&place), "{refused}");
    load.some().await;
    install(&folder, &config.drain_timeout("9s"));
    process.until_logged("config_reloaded", 1).await;
    let reloaded = process.logged("config_reloaded").remove(0);
    assert!(reloaded.contains("server.drain_timeout: \\\"10s\\\" -> \\\"9s\\\""), "{reloaded}");
    load.some().await;
    load.finish().await;
    assert_eq!(process.terminate().await.status.code(), Some(0));
}

#[tokio::test]
async fn an_inherited_socket_is_served_and_outlives_its_process() {
    let folder = Folder::new();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("the socket is bound");
    let config = configuration(Listener::at(&address.to_string())).await;
    let file = install(&folder, &config);
    let pass = || OwnedFd::from(socket.try_clone().expect("another handle"));
    let load = Load::start(&Target::Tcp(address));
    for _ in 0..2 {
        // The connections of the load wait in the socket's queue until a process accepts them.
        let process = Process::run(activated_command(&file, pass())).await;
        load.some().await;
        assert_eq!(process.terminate().await.status.code(), Some(0));
    }
    let _last = Process::run(activated_command(&file, pass())).await;
    load.some().await;
    load.finish().await;
    // A socket that no listener is configured for is a mistake.
    let other = install(&folder, &config.listener(|listener| listener.address("127.0.0.1:0")));
    let refused = run_to_end(&mut activated_command(&other, pass()));
    assert!(!refused.status.success());
    let expected = format!("started with the socket `web` on {address}, and no listener has that address");
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains(&expected), "{error}");
}

#[tokio::test]
async fn a_service_manager_is_notified_of_each_state() {
    let folder = Folder::new();
    let manager = UnixDatagram::bind(folder.join("notify.sock")).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let notification = || {
        let mut text = [0; 256];
        let length = manager.recv(&mut text).expect("a notification");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let file = install(&folder, &configuration(Listener::new()).await);
    let mut serve = command(&file);
    serve.env("NOTIFY_SOCKET", folder.join("notify.sock"));
    let process = Process::run(serve).await;
    assert_eq!(notification(), "READY=1\n");
    process.signal("HUP");
    let reloading = notification();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(notification(), "READY=1\n");
    process.signal("TERM");
    assert_eq!(notification(), "STOPPING=1\n");
    assert_eq!(process.ended().await.status.code(), Some(0));
}
