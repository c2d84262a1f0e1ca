//! `postern health`: for containers that hold nothing but this binary.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::Failure;

const TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where callers connect to it.
    #[arg(value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    address: SocketAddr,
    /// Ask its admin listener there (/healthz) instead.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "address")]
    admin: Option<SocketAddr>,
    /// Ask the admin listener whether it is ready (/readyz), not whether it is alive.
    #[arg(long, requires = "admin")]
    ready: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match arguments.admin {
        // A request without a credential costs the gateway next to nothing, and only a gateway answers it with its own shape.
        None => expect(arguments.address, "HEAD", "/api/v2/public/execution", "HTTP/1.1 401 ", "x-request-id: "),
        Some(admin) if arguments.ready => expect(admin, "GET", "/readyz", "HTTP/1.1 200 ", "\"ready\":true"),
        Some(admin) => expect(admin, "GET", "/healthz", "HTTP/1.1 200 ", "\"status\":\"ok\""),
    }
}

fn expect(address: SocketAddr, method: &str, path: &str, begins: &str, has: &str) -> Result<(), Failure> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(8192).read_to_string(&mut answer)?;
    if answer.starts_with(begins) && answer.contains(has) {
        Ok(())
    } else {
        Err(format!("{address}{path} does not answer as Postern does when all is well").into())
    }
}
