//! CPU time of TLS handshakes: 1,000 clients connect in turn, twice. Each client keeps its session, so the second handshake
//! resumes it.
//!
//! `cargo bench --bench handshakes -- run` starts a gateway with one worker in this process and prints the CPU time of that
//! worker's thread per connection, less that of a plain connection with the same request. It ends with 1 if a handshake is not
//! of the expected kind, or if resumed handshakes take more than 0.6 of the CPU time of full ones. With the paths of a
//! certificate and its key (`-- run server.pem server.key`) it measures these; otherwise those of `tests/data`, ECDSA P-256.
//! Resumption saves the certificate and its signature, in TLS 1.2 the key exchange too. A P-256 signature is cheap, so with it a
//! resumed TLS 1.3 handshake takes about 0.9 of a full one; with RSA it takes a quarter.
//! Without an argument (as `cargo test` and a plain `cargo bench` run it) the program ends at once.

#![expect(clippy::print_stdout, reason = "prints the results")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postern::clock::Clock;
use postern::config::{Config, Environment, ListenAddress};
use postern::server::Server;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, SignatureScheme, StreamOwned,
    SupportedProtocolVersion,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type BenchError = Box<dyn std::error::Error + Send + Sync>;

const CLIENTS: usize = 1000;
/// The largest share of a full handshake's CPU time that a resumed one may take.
const LARGEST_SHARE: f64 = 0.6;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

fn main() -> Result<(), BenchError> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
    let [certificate, key] = match arguments.as_slice() {
        [run] if run == "run" => [format!("{data}/server-1.pem"), format!("{data}/server-1.key")],
        [run, certificate, key] if run == "run" => [certificate.clone(), key.clone()],
        _ => return Ok(()),
    };
    let server = start(&certificate, &key)?;
    let addresses: Vec<SocketAddr> = server
        .addresses()
        .iter()
        .filter_map(|address| if let ListenAddress::Tcp(address) = address { Some(*address) } else { None })
        .collect();
    let [encrypted, plain] = addresses[..] else { return Err("the gateway has two listeners".into()) };
    // Once before it counts, so that memory is allocated and the worker's thread has its name.
    (0..CLIENTS).try_for_each(|_| ask(connect(plain)?))?;
    let worker = WorkerThread::find()?;
    let base = worker.cpu_time_of(|| (0..CLIENTS).try_for_each(|_| ask(connect(plain)?)))?;
    println!("plain connection with one request: {:6.1} us of CPU time", per_client(base));
    let mut is_good = true;
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let clients: Vec<_> = (0..CLIENTS).map(|_| client(version)).collect::<Result<_, _>>()?;
        let round = |expected| clients.iter().try_for_each(|client| handshake(encrypted, client, expected));
        let full = worker.cpu_time_of(|| round(HandshakeKind::Full))?.saturating_sub(base);
        let resumed = worker.cpu_time_of(|| round(HandshakeKind::Resumed))?.saturating_sub(base);
        let share = resumed.as_secs_f64() / full.as_secs_f64();
        is_good &= share <= LARGEST_SHARE;
        println!(
            "{:?}: full {:6.1} us, resumed {:6.1} us: {share:.2}",
            version.version,
            per_client(full),
            per_client(resumed)
        );
    }
    if is_good {
        Ok(())
    } else {
        Err(format!("a resumed handshake takes more than {LARGEST_SHARE} of a full one").into())
    }
}

fn per_client(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6 / f64::from(u32::try_from(CLIENTS).unwrap_or(u32::MAX))
}

/// Starts a gateway with a TLS listener and a plain one.
fn start(certificate: &str, key: &str) -> Result<Server, BenchError> {
    let text = format!(
        r#"
        [[listeners]]
        address = "127.0.0.1:0"
        tls = {{ certificate = "{certificate}", key = "{key}" }}
        [[listeners]]
        address = "127.0.0.1:0"
        [admin]
        address = "off"
        [server]
        workers = 1
        [upstream]
        base_url = "http://127.0.0.1:9"
        verify_key = "off"
        [[tenants]]
        id = "bench"
        mode = "validate"
        org_key = {{ env = "ORG_KEY" }}
        "#
    );
    let mut environment = Environment::default();
    environment.insert("ORG_KEY", "tk_org");
    let folder = std::env::current_dir()?;
    Ok(Server::start(Config::parse(&text, &folder.join("bench.toml"), &environment)?, Clock::system())?)
}

/// A client with a session store of its own.
fn client(version: &'static SupportedProtocolVersion) -> Result<Arc<ClientConfig>, BenchError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn handshake(address: SocketAddr, client: &Arc<ClientConfig>, expected: HandshakeKind) -> Result<(), BenchError> {
    let connection = ClientConnection::new(Arc::clone(client), "localhost".try_into()?)?;
    let mut stream = StreamOwned::new(connection, connect(address)?);
    ask(&mut stream)?;
    match stream.conn.handshake_kind() {
        Some(kind) if kind == expected => Ok(()),
        kind => Err(format!("a handshake was {kind:?}, not {expected:?}").into()),
    }
}

/// Connects without Nagle's algorithm. Where the client ends the handshake, as it does when it resumes a TLS 1.2 session, the
/// algorithm holds its request until the server's delayed acknowledgement, and the worker's caches are cold by then.
fn connect(address: SocketAddr) -> Result<TcpStream, BenchError> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a request and reads to the end.
fn ask(mut stream: impl Read + Write) -> Result<(), BenchError> {
    stream.write_all(REQUEST)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.1 404") { Ok(()) } else { Err("the answer is not the expected one".into()) }
}

/// The thread of the gateway's worker.
struct WorkerThread(std::path::PathBuf);

impl WorkerThread {
    fn find() -> Result<Self, BenchError> {
        for task in std::fs::read_dir("/proc/self/task")? {
            let task = task?.path();
            // Another thread may have ended since the folder was listed.
            if std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim_end() == "worker-0") {
                return Ok(Self(task.join("schedstat")));
            }
        }
        Err("there is no worker thread".into())
    }

    /// Runs a function and returns the CPU time that the thread takes meanwhile (proc(5), schedstat: nanoseconds).
    fn cpu_time_of(&self, run: impl FnOnce() -> Result<(), BenchError>) -> Result<Duration, BenchError> {
        let read = |path: &Path| -> Result<u64, BenchError> {
            let text = std::fs::read_to_string(path)?;
            Ok(text.split_whitespace().next().ok_or("the file is empty")?.parse()?)
        };
        let before = read(&self.0)?;
        run()?;
        Ok(Duration::from_nanos(read(&self.0)? - before))
    }
}

/// Accepts any certificate: the client's work is not measured.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
