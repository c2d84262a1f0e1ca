//! Inbound TLS: certificates that change, and clients that show one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;

use crate::harness::{EXECUTIONS, Gateway, Setup, World, as_account, configuration, spawn_upstream};

/// A folder of one's own, gone at the end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("postern-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Puts a server certificate into place.
pub(crate) fn install(folder: &Folder, server: &str) {
    for (from, to) in [(format!("{server}.key"), "server.key"), (format!("{server}.pem"), "server.pem")] {
        std::fs::copy(data(&from), folder.path().join(to)).expect("a temporary file");
    }
}

/// The configuration of a listener with the certificate in a folder.
pub(crate) fn tls_lines(folder: &Folder, more: &str) -> String {
    let at = |name: &str| folder.path().join(name).display().to_string();
    format!("tls = {{ certificate = \"{}\", key = \"{}\"{more} }}", at("server.pem"), at("server.key"))
}

/// How a client connects, perhaps with a certificate.
pub(crate) fn client_config(certificate: Option<&str>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(data("ca.pem")).expect("a certificate")).expect("an authority");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_root_certificates(roots);
    Arc::new(match certificate {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain = vec![CertificateDer::from_pem_file(data(&format!("{name}.pem"))).expect("a certificate")];
            let key = PrivateKeyDer::from_pem_file(data(&format!("{name}.key"))).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("they go together")
        }
    })
}

/// Asks once over a new connection: the status, and the certificate that the server has shown.
pub(crate) async fn ask(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    headers: &[(&str, &str)],
) -> Result<(StatusCode, CertificateDer<'static>), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let name = "localhost".try_into()?;
    let stream = tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
    let shown = stream.get_ref().1.peer_certificates().expect("a server certificate")[0].clone().into_owned();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = http::Request::get(EXECUTIONS).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Full::<Bytes>::default())?).await?;
    let status = response.status();
    response.into_body().collect().await?;
    Ok((status, shown))
}

/// A connection that stays open, on which the client may have shown a certificate.
pub(crate) struct Kept(SendRequest<Full<Bytes>>);

impl Kept {
    pub(crate) async fn open(address: SocketAddr, certificate: Option<&str>) -> Self {
        let stream = TcpStream::connect(address).await.expect("it listens");
        let connector = tokio_rustls::TlsConnector::from(client_config(certificate));
        let stream = connector.connect("localhost".try_into().expect("a name"), stream).await.expect("a handshake");
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        Self(sender)
    }

    /// The next answer's status, and whether it is the last one.
    pub(crate) async fn ask(&mut self, headers: &[(&str, &str)]) -> (StatusCode, bool) {
        let mut request = http::Request::get(EXECUTIONS).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::default()).expect("a request");
        let response = self.0.send_request(request).await.expect("an answer");
        let (status, last) = (response.status(), response.headers().contains_key("connection"));
        response.into_body().collect().await.expect("a body");
        (status, last)
    }
}

async fn world(listener: &str, more: &str) -> World {
    let setup = Setup::default();
    let refold = postern::simulator::Simulator::new(setup.settings.clone(), setup.clock.clone());
    let served = refold.clone();
    let upstream = spawn_upstream(|listener| async move {
        let _ = served.serve(listener).await;
    })
    .await;
    let tenant = setup.tenant.clone() + more;
    let text = configuration(upstream, &setup.top, &tenant).replace("session_tokens = \"t\"", listener);
    let gateway = Gateway::start_with(&text, setup.clock.clone());
    World { gateway, refold, refold_address: upstream, clock: setup.clock }
}

#[tokio::test]
async fn a_certificate_that_changes_on_disk_is_used_for_new_connections_and_a_broken_one_is_not() {
    let folder = Folder::new("certificates");
    install(&folder, "server-1");
    let world = world(&tls_lines(&folder, ""), "").await;
    let config = client_config(None);
    let ask = async || ask(world.gateway.address, &config, &as_account("acme-1")).await.expect("an answer");
    let (status, first) = ask().await;
    assert_eq!(status, StatusCode::OK);
    std::fs::write(folder.path().join("server.pem"), "nonsense").expect("a temporary file");
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(ask().await, (StatusCode::OK, first.clone()));
    install(&folder, "server-2");
    let mut shown = first.clone();
    for _ in 0..400 {
        let (status, now) = ask().await;
        assert_eq!(status, StatusCode::OK);
        shown = now;
        if shown != first {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    assert_ne!(shown, first);
    // Plain text is no TLS, and answered by nothing.
    let plain = world.gateway.raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(!plain.contains("HTTP/1.1"), "{plain}");
}

#[tokio::test]
async fn a_client_certificate_is_a_credential() {
    let folder = Folder::new("client-certificates");
    install(&folder, "server-1");
    let authority = format!(", client_ca = \"{}\"", data("ca.pem").display());
    let caller = "[[tenants.client_certificates]]\nname = \"dashboard\"\nsan = \"spiffe://cluster.local/ns/app/sa/dashboard\"\nlinked_accounts = [\"acme-*\"]\n";
    let world = world(&tls_lines(&folder, &authority), caller).await;
    let ask = async |certificate, headers: &[(&str, &str)]| {
        ask(world.gateway.address, &client_config(certificate), headers).await.map(|(status, _)| status)
    };
    let account = [("linked_account_id", "acme-1")];
    assert_eq!(ask(Some("client-app"), &account).await.expect("an answer"), StatusCode::OK);
    assert_eq!(
        ask(Some("client-app"), &[("linked_account_id", "globex")]).await.expect("an answer"),
        StatusCode::FORBIDDEN
    );
    // One that is good but stands for nobody, and none: a key is needed.
    for certificate in [Some("client-other"), None] {
        assert_eq!(ask(certificate, &account).await.expect("an answer"), StatusCode::UNAUTHORIZED);
        assert_eq!(ask(certificate, &as_account("globex")).await.expect("an answer"), StatusCode::OK);
    }
    assert_eq!(ask(Some("client-app"), &as_account("acme-1")).await.expect("an answer"), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn on_an_open_connection_a_certificate_stands_for_nobody_once_its_authority_is_replaced_on_disk() {
    let folder = Folder::new("replaced-authority");
    install(&folder, "server-1");
    let clients = folder.path().join("clients.pem");
    let put = |authority: &str| std::fs::copy(data(authority), &clients).expect("a temporary file");
    put("ca.pem");
    let authority = format!(", client_ca = \"{}\"", clients.display());
    let caller = "[[tenants.client_certificates]]\nname = \"dashboard\"\nsan = \"spiffe://cluster.local/ns/app/sa/dashboard\"\nlinked_accounts = [\"acme-*\"]\n";
    let world = world(&tls_lines(&folder, &authority), caller).await;
    let mut kept = Kept::open(world.gateway.address, Some("client-app")).await;
    let account = [("linked_account_id", "acme-1")];
    assert_eq!(kept.ask(&account).await, (StatusCode::OK, false));
    put("server-1.pem");
    let mut status = StatusCode::OK;
    for _ in 0..400 {
        status = kept.ask(&account).await.0;
        if status != StatusCode::OK {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn where_a_client_certificate_is_required_there_is_no_handshake_without_one() {
    let folder = Folder::new("required-certificates");
    install(&folder, "server-1");
    let more = format!(", client_ca = \"{}\", client_certificate = \"required\"", data("ca.pem").display());
    let world = world(&tls_lines(&folder, &more), "").await;
    assert!(ask(world.gateway.address, &client_config(None), &as_account("acme-1")).await.is_err());
    let (status, _) = ask(world.gateway.address, &client_config(Some("client-other")), &as_account("acme-1"))
        .await
        .expect("an answer");
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_unix_socket_has_the_configured_mode() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("socket-mode");
    let path = folder.path().join("postern.sock");
    let text = configuration(SocketAddr::from(([127, 0, 0, 1], 1)), "", &Setup::default().tenant)
        .replace("127.0.0.1:0", &format!("unix:{}", path.display()))
        .replace("session_tokens = \"t\"", "socket = { mode = \"0620\" }\ntrusted = { tenant = \"t\" }");
    let mut environment = postern::config::Environment::default();
    environment.insert("ORG_KEY", "tk_org");
    let config = postern::config::Config::parse(&text, Path::new("postern.toml"), &environment).expect("it is good");
    let server = postern::server::Server::start(config, Setup::default().clock).expect("it starts");
    let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o620);
    server.stop();
}
