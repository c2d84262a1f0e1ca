//! Listening sockets: one per worker for TCP, so that the kernel spreads connections without a shared accept queue; one
//! for all workers for a Unix path, which has no such thing.
//!
//! Another process may listen at the same place at the same time, so that one takes over from the other: on TCP ports by
//! `SO_REUSEPORT`, at a Unix path by a new socket renamed over the old one.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::config::{ListenAddress, ListenerConfig, SocketFile};

/// Connections that may wait to be accepted, per socket.
const BACKLOG: i32 = 1024;

/// A socket that listens, not yet tied to a runtime.
#[derive(Debug)]
pub(super) enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Bound {
    /// As many handles on this one socket as there are workers.
    pub(super) fn shared(self, workers: usize) -> io::Result<Vec<Self>> {
        let another = |_| {
            Ok(match &self {
                Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
                Self::Unix(listener) => Self::Unix(listener.try_clone()?),
            })
        };
        let mut handles = (1..workers).map(another).collect::<io::Result<Vec<_>>>()?;
        handles.push(self);
        Ok(handles)
    }
}

/// Sockets of one address.
#[derive(Debug)]
pub(super) struct Fresh {
    /// With the port that was taken.
    pub(super) address: ListenAddress,
    /// One for each worker.
    pub(super) sockets: Vec<Bound>,
    /// What is still to be done before a Unix socket can be found.
    pub(super) staged: Option<Staged>,
}

/// Binds an address for a number of workers.
pub(super) fn bind(listener: &ListenerConfig, workers: usize) -> io::Result<Fresh> {
    match &listener.address {
        ListenAddress::Tcp(address) => {
            let first = tcp(*address)?;
            let taken = first.local_addr()?;
            let mut sockets = vec![Bound::Tcp(first)];
            for _ in 1..workers {
                sockets.push(Bound::Tcp(tcp(taken)?));
            }
            Ok(Fresh { address: ListenAddress::Tcp(taken), sockets, staged: None })
        }
        ListenAddress::Unix(path) => {
            let (socket, staged) = unix(path, &listener.socket)?;
            let sockets = Bound::Unix(socket).shared(workers)?;
            Ok(Fresh { address: ListenAddress::Unix(path.clone()), sockets, staged: Some(staged) })
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

/// A Unix socket that listens under a name of its own, to be renamed: at no moment is there nobody to connect to. Dropped
/// before that, the name is removed.
#[derive(Debug)]
pub(super) struct Staged {
    name: PathBuf,
    path: PathBuf,
}

impl Staged {
    /// From now on whoever connects to the path connects to this socket.
    pub(super) fn put_in_place(&self) -> io::Result<()> {
        std::fs::rename(&self.name, &self.path)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // In its place it has no other name any more.
        let _ = std::fs::remove_file(&self.name);
    }
}

fn unix(path: &Path, file: &SocketFile) -> io::Result<(UnixListener, Staged)> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
    }
    let staged = Staged { name: name_beside(path), path: path.to_owned() };
    // Of a process with this id that came to its end half-way.
    let _ = std::fs::remove_file(&staged.name);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(&staged.name)?)?;
    // Before it can be found: nobody connects who may not.
    if file.owner.is_some() || file.group.is_some() {
        chown(&staged.name, file.owner, file.group)?;
    }
    if let Some(mode) = file.mode {
        std::fs::set_permissions(&staged.name, std::fs::Permissions::from_mode(mode))?;
    }
    socket.listen(BACKLOG)?;
    Ok((socket.into(), staged))
}

/// In the same folder, so that it can be renamed, and short, since the kernel takes no more than 107 bytes.
fn name_beside(path: &Path) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    path.with_file_name(format!(".{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)))
}

/// Lets no new connection begin at this socket, while those that have begun come to be accepted: the first packet is dropped,
/// and sent again by the client it finds whoever listens on the port then.
#[cfg(target_os = "linux")]
pub(super) fn turn_newcomers_away(listener: &impl std::os::fd::AsFd) -> io::Result<()> {
    use socket2::{SockFilter, SockRef};
    /// Where the flags are in a TCP header (RFC 9293, 3.1), and those that tell a first packet: SYN without ACK.
    const FLAGS: u32 = 13;
    const SYN_AND_ACK: u32 = 0x12;
    const SYN: u32 = 0x02;
    // Instructions of the classic BPF: load a byte, mask it, compare it, return how much of the packet is let through.
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

/// Only Linux has packet filters of this kind.
#[cfg(not(target_os = "linux"))]
pub(super) fn turn_newcomers_away(_: &impl std::os::fd::AsFd) -> io::Result<()> {
    Ok(())
}
