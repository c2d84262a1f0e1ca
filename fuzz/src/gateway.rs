//! A gateway in this process, in front of the simulated Refold.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

use postern::clock::Clock;
use postern::config::ListenAddress;
use postern::server::Server;
use postern::simulator::{Simulator, SimulatorSettings};

/// Longest time that a connection may take; more is a finding.
const DEADLINE: Duration = Duration::from_secs(8);

static GATEWAY: LazyLock<(Server, SocketAddr)> = LazyLock::new(start);

fn start() -> (Server, SocketAddr) {
    let settings =
        SimulatorSettings { org_keys: vec![crate::ORG_KEY.to_owned()], rate: None, ..SimulatorSettings::default() };
    let simulator = Simulator::new(settings, Clock::system());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let refold = listener.local_addr().expect("an address");
    let serve = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            simulator.serve(listener).await.expect("the simulated Refold serves");
        });
    };
    std::thread::Builder::new().name("refold".to_owned()).spawn(serve).expect("a thread");
    let config = crate::configuration(&format!("http://{refold}"));
    let server = Server::start(config, Clock::system()).unwrap_or_else(|error| panic!("{error}"));
    let address = match &server.addresses()[0] {
        ListenAddress::Tcp(address) => *address,
        other => panic!("{other} is no TCP address"),
    };
    (server, address)
}

/// Sends the parts of a byte stream on a connection of its own, ends the output, and returns all that arrives.
#[must_use]
pub fn exchange<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut stream = connect();
    for part in parts {
        // Fails after the gateway has refused the first part and closed.
        if stream.write_all(part).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    read(stream)
}

/// Sends one request, which has to ask for the end of its connection, and returns the status of the response; `None` if there is none.
#[must_use]
pub fn ask(request: &[u8]) -> Option<u16> {
    let mut stream = connect();
    stream.write_all(request).expect("the gateway reads the request");
    let received = read(stream);
    std::str::from_utf8(received.strip_prefix(b"HTTP/1.1 ")?.get(..3)?).ok()?.parse().ok()
}

fn connect() -> TcpStream {
    let stream = TcpStream::connect(GATEWAY.1).expect("the gateway accepts");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
    stream.set_write_timeout(Some(DEADLINE)).expect("a socket");
    stream
}

/// Reads until the gateway closes.
fn read(mut stream: TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            // libFuzzer's timer.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("the gateway neither answers nor closes: {error}"),
        }
    }
    let contains = |text: &str| received.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(!contains(crate::ORG_KEY), "the org key reaches the caller");
    received
}
