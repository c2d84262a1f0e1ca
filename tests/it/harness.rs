//! Starts everything on free ports, and asks.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use postern::clock::Clock;
use postern::config::{Config, ConfigError, Environment, ListenAddress};
use postern::digest::{Hex, sha256};
use postern::server::Server;
use postern::simulator::{Simulator, SimulatorSettings};
use serde_json::Value;
use tokio::net::TcpListener;

/// The org key of the simulated Refold: no client may ever see it.
pub(crate) const ORG_KEY: &str = "tk_org_key_that_nobody_may_see_93d1";
/// A client key that may read and write every linked account.
pub(crate) const KEY: &str = "pst_all_accounts";
/// The one that follows it.
pub(crate) const NEXT_ORG_KEY: &str = "tk_next_org_key_that_nobody_may_see_5c0e";
/// The one of another org.
pub(crate) const OTHER_ORG_KEY: &str = "tk_other_org";
/// A secret that an issuer signs with.
pub(crate) const JWT_SECRET: &str = "a-secret-of-at-least-thirty-two-bytes-0001";
/// An admin listener without a token; by default there is none.
pub(crate) const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";
/// What the admin listener wants to be shown, where it is so configured.
pub(crate) const ADMIN_TOKEN: &str = "an-admin-token-that-nobody-may-see-7a11";
pub(crate) const EXECUTIONS: &str = "/api/v2/public/execution";

/// A moment for tests whose time stands still.
pub(crate) const NOW: &str = "2026-03-20T12:00:00Z";

/// A gateway in front of a simulated Refold.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) refold: Simulator,
    /// Where the simulated Refold listens.
    pub(crate) refold_address: SocketAddr,
    pub(crate) clock: Clock,
}

/// A gateway that serves, and a client of it.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    server: Server,
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("visible ASCII"))
    }

    pub(crate) fn error_code(&self) -> String {
        self.json()["error_code"].as_str().expect("an error body").to_owned()
    }
}

/// What a gateway of a test is configured with.
pub(crate) struct Setup {
    pub(crate) settings: SimulatorSettings,
    pub(crate) clock: Clock,
    /// Lines of the file before its tenants.
    pub(crate) top: String,
    /// Lines of the tenant and its client keys.
    pub(crate) tenant: String,
    /// Whether the listener takes session tokens.
    pub(crate) session_tokens: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            settings: SimulatorSettings { org_keys: vec![ORG_KEY.to_owned()], rate: None, ..SimulatorSettings::default() },
            clock: Clock::manual(NOW.parse().expect("a timestamp")),
            top: "[limits.upstream]\nper_second = 100000\nburst = 100000\n[limits.client]\nper_second = 100000\nburst = 100000\n[cache.stale]\nwhile_revalidate = \"0s\"\nif_error = \"0s\"\n"
                .to_owned(),
            session_tokens: true,
            tenant: client_key("all", KEY, "linked_accounts = [\"*\"]\naccess = \"read+write\""),
        }
    }
}

/// The lines of a client key.
pub(crate) fn client_key(name: &str, key: &str, lines: &str) -> String {
    format!("[[tenants.client_keys]]\nname = \"{name}\"\nsha256 = \"{}\"\n{lines}\n", Hex(&sha256(key.as_bytes())))
}

impl Setup {
    pub(crate) async fn start(self) -> World {
        let refold = Simulator::new(self.settings, self.clock.clone());
        let address = spawn_upstream(|listener| {
            let refold = refold.clone();
            async move {
                let _ = refold.serve(listener).await;
            }
        })
        .await;
        let mut configuration = configuration(address, &self.top, &self.tenant);
        if !self.session_tokens {
            configuration = configuration.replace("session_tokens = \"t\"", "");
        }
        let gateway = Gateway::start_with(&configuration, self.clock.clone());
        World { gateway, refold, refold_address: address, clock: self.clock }
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Setup::default().start().await
    }

    /// `GET` of the executions with a query, as a caller of a linked account.
    pub(crate) async fn list(&self, linked_account: &str, query: &str) -> Answer {
        self.gateway.get(&format!("{EXECUTIONS}?{query}"), &as_account(linked_account)).await
    }
}

pub(crate) fn as_account(linked_account: &str) -> [(&'static str, &str); 2] {
    [("x-api-key", KEY), ("linked_account_id", linked_account)]
}

/// Runs an upstream in the background of the test.
pub(crate) async fn spawn_upstream<F: Future<Output = ()> + Send + 'static>(
    serve: impl FnOnce(TcpListener) -> F,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(serve(listener));
    address
}

pub(crate) fn configuration(upstream: SocketAddr, top: &str, tenant: &str) -> String {
    let server = if top.contains("[server]") { "" } else { "[server]\nworkers = 2\ndrain_timeout = \"200ms\"" };
    let admin = if top.contains("[admin]") { "" } else { "[admin]\naddress = \"off\"" };
    let retries = if top.contains("retries") { "" } else { "retries = 0" };
    let verify_key = if top.contains("verify_key") { "" } else { "verify_key = \"off\"" };
    format!(
        r#"
[[listeners]]
address = "127.0.0.1:0"
session_tokens = "t"
{admin}
{server}
[upstream]
base_url = "http://{upstream}"
{retries}
{verify_key}
{top}
[[tenants]]
id = "t"
mode = "inject"
org_key = {{ env = "ORG_KEY" }}
{tenant}
"#
    )
}

/// A configuration in an environment that has all the secrets.
pub(crate) fn parsed(configuration: &str) -> Result<Config, ConfigError> {
    let mut environment = Environment::default();
    environment.insert("ORG_KEY", ORG_KEY);
    environment.insert("OTHER_ORG_KEY", OTHER_ORG_KEY);
    environment.insert("JWT_SECRET", JWT_SECRET);
    environment.insert("NEXT_ORG_KEY", NEXT_ORG_KEY);
    environment.insert("ADMIN_TOKEN", ADMIN_TOKEN);
    Config::parse(configuration, Path::new("test.toml"), &environment)
}

impl Gateway {
    pub(crate) fn start(upstream: SocketAddr, top: &str, tenant: &str, clock: Clock) -> Self {
        Self::start_with(&configuration(upstream, top, tenant), clock)
    }

    pub(crate) fn start_with(configuration: &str, clock: Clock) -> Self {
        let config = parsed(configuration).unwrap_or_else(|error| panic!("{error}"));
        let server = Server::start(config, clock).unwrap_or_else(|error| panic!("{error}"));
        let ListenAddress::Tcp(address) = server.addresses()[0] else { panic!("a TCP listener") };
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { address, client, server }
    }

    /// Serves as another configuration says.
    pub(crate) fn reload(&self, configuration: &str) {
        let config = parsed(configuration).unwrap_or_else(|error| panic!("{error}"));
        self.server.reload(config).unwrap_or_else(|error| panic!("{error}"));
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// What Prometheus would see.
    pub(crate) fn metrics(&self) -> String {
        self.server().gateway().metrics(&self.server().lifecycle().reloads())
    }

    pub(crate) async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, target, headers).await
    }

    /// Where whoever runs it asks.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        match self.server.admin_address() {
            Some(ListenAddress::Tcp(address)) => *address,
            other => panic!("{other:?}"),
        }
    }

    /// `GET` at the admin listener.
    pub(crate) async fn admin(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        let url = format!("http://{}{target}", self.admin_address());
        self.ask(Method::GET, url, headers).await.unwrap_or_else(|error| panic!("{target}: {error}"))
    }

    /// `POST` at the admin listener.
    pub(crate) async fn admin_post(&self, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.post_to(self.admin_address(), target, headers, body).await
    }

    /// `POST` with a body.
    pub(crate) async fn post(&self, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.post_to(self.address, target, headers, body).await
    }

    async fn post_to(&self, address: SocketAddr, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let request = Request::post(format!("http://{address}{target}"));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).expect("a request");
        let (head, body) = self.client.request(request).await.expect("an answer").into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Answer { status: head.status, headers: head.headers, body }
    }

    pub(crate) async fn send(&self, method: Method, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.try_send(method, target, headers).await.unwrap_or_else(|error| panic!("{target}: {error}"))
    }

    pub(crate) async fn try_send(
        &self,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        self.ask(method, format!("http://{}{target}", self.address), headers).await
    }

    async fn ask(
        &self,
        method: Method,
        url: String,
        headers: &[(&str, &str)],
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::default())?;
        let answered = async {
            let (head, body) = self.client.request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        // Nobody would ever answer a test that waits for ever.
        tokio::time::timeout(Duration::from_secs(30), answered).await?
    }

    /// Sends bytes as they are, and reads until the connection ends.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.address).await.expect("it listens");
        stream.write_all(bytes).await.expect("it reads");
        let mut out = Vec::new();
        let _ = stream.read_to_end(&mut out).await;
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// Waits for something that another task is about to do.
pub(crate) async fn until(mut done: impl FnMut() -> bool) {
    tokio::time::timeout(Duration::from_secs(20), async {
        while !done() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it happens in the end");
}

/// An upstream that answers with what a function makes of a request.
pub(crate) async fn http_upstream<F, R>(answer: F) -> SocketAddr
where
    F: Fn(Request<hyper::body::Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = http::Response<Full<Bytes>>> + Send + 'static,
{
    spawn_upstream(move |listener| async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = hyper::service::service_fn(move |request| {
                let answered = answer(request);
                async move { Ok::<_, std::convert::Infallible>(answered.await) }
            });
            tokio::spawn(async move {
                let io = hyper_util::rt::TokioIo::new(stream);
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            });
        }
    })
    .await
}

/// A page of one execution.
pub(crate) fn page_of(document: &Value) -> http::Response<Full<Bytes>> {
    let page = serde_json::json!({ "docs": [document], "totalDocs": 1 });
    http::Response::new(Full::new(page.to_string().into()))
}
