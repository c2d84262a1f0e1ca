//! Listening sockets: one per worker for TCP, so that the kernel spreads connections without a shared accept queue; one
//! for all workers for a Unix path, which has no such thing.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::config::{ListenAddress, Listener, SocketFile};

/// Connections that may wait to be accepted, per socket.
const BACKLOG: i32 = 1024;

/// A socket that listens, not yet tied to a runtime.
#[derive(Debug)]
pub(super) enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Binds an address for a number of workers; tells the address with the port that was taken.
pub(super) fn bind(listener: &Listener, workers: usize) -> io::Result<(ListenAddress, Vec<Bound>)> {
    match &listener.address {
        ListenAddress::Tcp(address) => {
            let first = tcp(*address)?;
            let taken = first.local_addr()?;
            let mut sockets = vec![Bound::Tcp(first)];
            for _ in 1..workers {
                sockets.push(Bound::Tcp(tcp(taken)?));
            }
            Ok((ListenAddress::Tcp(taken), sockets))
        }
        ListenAddress::Unix(path) => {
            let first = unix(path, &listener.socket)?;
            let mut sockets = Vec::with_capacity(workers);
            for _ in 1..workers {
                sockets.push(Bound::Unix(first.try_clone()?));
            }
            sockets.push(Bound::Unix(first));
            Ok((ListenAddress::Unix(path.clone()), sockets))
        }
    }
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn unix(path: &Path, file: &SocketFile) -> io::Result<UnixListener> {
    remove_abandoned(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Before it listens: nobody connects who may not.
    if file.owner.is_some() || file.group.is_some() {
        chown(path, file.owner, file.group)?;
    }
    if let Some(mode) = file.mode {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Removes the socket of a process that is gone; one that answers, and a file that is no socket, stay.
fn remove_abandoned(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}
