//! `postern health`: for containers that hold nothing but this binary.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::Failure;

const TIMEOUT: Duration = Duration::from_secs(2);

/// A request without a credential costs the gateway next to nothing, and only a gateway answers it with its own shape.
pub(super) fn run(address: SocketAddr) -> Result<(), Failure> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(b"HEAD /api/v2/public/execution HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(8192).read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 401 ") && answer.contains("x-request-id: ") {
        Ok(())
    } else {
        Err(format!("{address} does not answer as Postern does").into())
    }
}
