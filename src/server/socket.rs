//! Listening sockets. TCP has one socket per worker, so that the kernel spreads connections without a shared accept queue; a
//! Unix path has one socket, from which one worker accepts for all.
//!
//! Another process can listen at the same address at the same time and so take over from this one: on TCP ports by
//! `SO_REUSEPORT`, at a Unix path by a new socket renamed over the old one. It does so only on request
//! ([`OccupiedAddress::TakeOver`]).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::sync::{mpsc, watch};

use super::error::StartError;
use super::worker_loads::{HandOver, HandedConnection};
use crate::config::{Endpoint, ListenAddress, SocketFile};
use crate::generation::ListenerId;

/// Connections that can wait to be accepted, per socket.
const BACKLOG: i32 = 1024;

/// A listening socket that no runtime has registered yet.
#[derive(Debug)]
pub(super) enum BoundSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Treatment of an address at which another process listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OccupiedAddress {
    /// The server does not start.
    #[default]
    Refuse,
    /// The server listens there too, to take over from the other process.
    TakeOver,
}

/// The process in which a socket stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SocketOwner {
    /// This process bound the socket and closes it.
    ThisProcess,
    /// The service manager holds the socket open for the next process.
    ServiceManager,
}

/// The way in which a worker gets the connections of a listener.
#[derive(Debug)]
pub(super) enum ConnectionSource {
    /// The worker accepts on a socket of its own.
    Own(TcpListener),
    /// The worker accepts for all workers and hands the connections over.
    Shared(BoundSocket, HandOver),
    /// The worker gets connections that another worker accepts.
    Handed(mpsc::UnboundedReceiver<HandedConnection>),
}

/// One worker's source of connections of a listener.
#[derive(Debug)]
pub(super) struct WorkerSocket {
    pub(super) source: ConnectionSource,
    pub(super) owner: SocketOwner,
    pub(super) listener: ListenerId,
    /// Turns true when the worker is to stop accepting.
    pub(super) close: watch::Receiver<bool>,
}

/// The sockets of one address.
#[derive(Debug)]
pub(super) enum Sockets {
    /// One for each worker.
    PerWorker(Vec<TcpListener>),
    /// One for all workers.
    Shared(BoundSocket),
}

impl Sockets {
    /// Returns the sources of each worker, by the worker's index. `acceptor` is the worker that accepts from a shared socket.
    pub(super) fn into_sources(self, workers: usize, acceptor: usize) -> Vec<Vec<ConnectionSource>> {
        match self {
            Self::PerWorker(sockets) => sockets.into_iter().map(|socket| vec![ConnectionSource::Own(socket)]).collect(),
            Self::Shared(socket) => {
                let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
                let mut sources: Vec<_> =
                    receivers.into_iter().map(|own| vec![ConnectionSource::Handed(own)]).collect();
                sources[acceptor].push(ConnectionSource::Shared(socket, senders));
                sources
            }
        }
    }
}

/// The sockets bound at one address.
#[derive(Debug)]
pub(super) struct BoundAddress {
    /// The configured address, with the port that the kernel chose in place of port 0.
    pub(super) address: ListenAddress,
    pub(super) sockets: Sockets,
    /// The Unix path, which clients do not find before it is published.
    pub(super) staged: Option<StagedPath>,
}

impl BoundAddress {
    /// Returns the endpoint of the admin listener, which accepts IPv4 and IPv6.
    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint { address: self.address.clone(), ipv6_only: false }
    }
}

/// Binds an endpoint for a number of workers. `file` holds the mode and owner of a Unix socket.
pub(super) fn bind(
    endpoint: &Endpoint,
    file: &SocketFile,
    workers: usize,
    occupied: OccupiedAddress,
) -> Result<BoundAddress, StartError> {
    bind_for_workers(endpoint, file, workers, occupied).map_err(|source| {
        let address = endpoint.address.clone();
        if occupied == OccupiedAddress::Refuse && source.kind() == io::ErrorKind::AddrInUse {
            StartError::Occupied { address, source }
        } else {
            StartError::Listen { address, source }
        }
    })
}

fn bind_for_workers(
    endpoint: &Endpoint,
    file: &SocketFile,
    workers: usize,
    occupied: OccupiedAddress,
) -> io::Result<BoundAddress> {
    match &endpoint.address {
        ListenAddress::Tcp(address) => {
            let first = listen_tcp(*address, endpoint.ipv6_only, occupied)?;
            let bound = first.local_addr()?;
            let mut sockets = vec![first];
            for _ in 1..workers {
                sockets.push(listen_tcp(bound, endpoint.ipv6_only, OccupiedAddress::TakeOver)?);
            }
            let sockets = Sockets::PerWorker(sockets);
            Ok(BoundAddress { address: ListenAddress::Tcp(bound), sockets, staged: None })
        }
        ListenAddress::Unix(path) => {
            if occupied == OccupiedAddress::Refuse {
                require_free(path)?;
            }
            let (socket, staged) = bind_unix(path, file)?;
            let sockets = Sockets::Shared(BoundSocket::Unix(socket));
            Ok(BoundAddress { address: endpoint.address.clone(), sockets, staged: Some(staged) })
        }
    }
}

/// Makes a TCP socket that listens.
///
/// With `SO_REUSEPORT` two processes of one user can listen on one port. So the first socket gets it only when it listens: until
/// then it fails if another one listens there, and after that others fail, but for those that this process adds. Of two processes
/// that start at the same moment, one fails.
fn listen_tcp(address: SocketAddr, ipv6_only: bool, occupied: OccupiedAddress) -> io::Result<TcpListener> {
    let socket = tcp_socket(address, ipv6_only)?;
    if occupied == OccupiedAddress::TakeOver {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_reuse_port(true)?;
    Ok(socket.into())
}

/// Fails with [`io::ErrorKind::AddrInUse`] if a socket listens at a path. It could be replaced, so binding alone does not find
/// that out.
fn require_free(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A connection to a socket whose queue is full would wait otherwise.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?).map_err(|error| (error.kind(), error)) {
        Err((io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused, _)) => Ok(()),
        Ok(()) | Err((io::ErrorKind::WouldBlock, _)) => Err(io::ErrorKind::AddrInUse.into()),
        Err((_, error)) => Err(error),
    }
}

/// Makes a TCP socket that can be bound while connections of an earlier process end.
fn tcp_socket(address: SocketAddr, ipv6_only: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Set in both cases, so that the host's default does not decide.
        socket.set_only_v6(ipv6_only)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A Unix socket that listens under a temporary name, to be renamed to its path: at every moment there is a socket to connect
/// to. Removes the temporary name when it is dropped unpublished.
#[derive(Debug)]
pub(super) struct StagedPath {
    temporary: PathBuf,
    path: PathBuf,
}

impl StagedPath {
    /// Renames the socket to its path; clients connect to it from now on.
    pub(super) fn publish(&self) -> io::Result<()> {
        std::fs::rename(&self.temporary, &self.path)
    }
}

impl Drop for StagedPath {
    fn drop(&mut self) {
        // Fails once it is published: the temporary name is gone.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

fn bind_unix(path: &Path, file: &SocketFile) -> io::Result<(UnixListener, StagedPath)> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
    }
    let staged = StagedPath { temporary: temporary_name(path), path: path.to_owned() };
    // Left by a process with the same id that ended between binding and renaming.
    let _ = std::fs::remove_file(&staged.temporary);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(&staged.temporary)?)?;
    // Before it is published, so that no client connects that lacks the permission.
    if file.owner.is_some() || file.group.is_some() {
        chown(&staged.temporary, file.owner, file.group)?;
    }
    if let Some(mode) = file.mode {
        std::fs::set_permissions(&staged.temporary, std::fs::Permissions::from_mode(mode))?;
    }
    socket.listen(BACKLOG)?;
    Ok((socket.into(), staged))
}

/// Returns a name in the same folder, so that a rename is possible; a short one, since the kernel takes 107 bytes at most.
fn temporary_name(path: &Path) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    path.with_file_name(format!(".{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)))
}

/// Drops the first packet of each new connection at a socket, while connections that have begun still complete and can be
/// accepted. The client sends the packet again, and then reaches the process that listens on the port by that time.
#[cfg(target_os = "linux")]
pub(super) fn drop_new_handshakes(listener: &impl std::os::fd::AsFd) -> io::Result<()> {
    use socket2::{SockFilter, SockRef};
    /// Offset of the flags in a TCP header (RFC 9293, 3.1), and the flags of a first packet: SYN without ACK.
    const FLAGS: u32 = 13;
    const SYN_AND_ACK: u32 = 0x12;
    const SYN: u32 = 0x02;
    // Instructions of classic BPF: load a byte, mask it, compare it, return the number of bytes to let through.
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(AND, 0, 0, SYN_AND_ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

/// Does nothing: only Linux has packet filters of this kind.
#[cfg(not(target_os = "linux"))]
pub(super) fn drop_new_handshakes(_: &impl std::os::fd::AsFd) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_processes_that_start_at_once_one_listens() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let address = address.parse().expect("an address");
            let listen = |address, occupied| listen_tcp(address, true, occupied);
            let is_taken = |error: io::Error| error.kind() == io::ErrorKind::AddrInUse;
            let first = listen(address, OccupiedAddress::Refuse).expect("a free port");
            let address = first.local_addr().expect("it is bound");
            // The first process has one socket, and the others not yet.
            assert!(is_taken(listen(address, OccupiedAddress::Refuse).expect_err("the port is taken")));
            listen(address, OccupiedAddress::TakeOver).expect("another worker's socket");
            // Both have bound before one listens, which the kernel allows.
            let late = tcp_socket(address, true).expect("a socket");
            late.bind(&SocketAddr::new(address.ip(), 0).into()).expect("a free port");
            let address = late.local_addr().expect("it is bound").as_socket().expect("an IP address");
            let _first = listen(address, OccupiedAddress::Refuse).expect("no other socket listens");
            assert!(is_taken(late.listen(BACKLOG).expect_err("the port is taken")));
        }
    }
}
