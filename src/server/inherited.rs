//! Sockets that the service manager opened (systemd's socket activation, sd_listen_fds(3)). They stay open there while one
//! process ends and the next one starts, so connections wait instead of being refused.

use std::io;
use std::os::fd::AsFd;

use listenfd::ListenFd;
use socket2::SockRef;

use super::error::StartError;
use super::socket::BoundSocket;
use crate::config::ListenAddress;

/// Listening sockets that this process was started with and that no listener has taken yet.
#[derive(Debug, Default)]
pub struct InheritedSockets(Vec<InheritedSocket>);

#[derive(Debug)]
struct InheritedSocket {
    /// The service manager's name for it.
    name: String,
    address: ListenAddress,
    socket: BoundSocket,
}

impl InheritedSockets {
    /// Takes the sockets that `LISTEN_FDS` counts, if `LISTEN_PID` is this process. Call it before the first thread starts:
    /// it removes the variables.
    ///
    /// # Errors
    /// If one of them is no listening TCP or Unix socket.
    pub fn from_environment() -> Result<Self, StartError> {
        #[expect(clippy::disallowed_methods, reason = "part of the socket activation protocol")]
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut passed = ListenFd::from_env();
        let count = passed.len();
        let inherit = |index: usize| {
            let name =
                names.get(index).filter(|name| !name.is_empty()).map_or("unknown".to_owned(), ToString::to_string);
            let taken = take(&mut passed, index);
            taken
                .map(|(address, socket)| InheritedSocket { name: name.clone(), address, socket })
                .map_err(|source| StartError::Inherited { name, source })
        };
        (0..count).map(inherit).collect::<Result<_, _>>().map(Self)
    }

    /// Takes the socket of an address, if there is one.
    pub(super) fn take(&mut self, address: &ListenAddress) -> Option<BoundSocket> {
        let index = self.0.iter().position(|inherited| inherited.address == *address)?;
        Some(self.0.swap_remove(index).socket)
    }

    /// Fails if a socket was not taken by a listener.
    pub(super) fn require_all_taken(&self) -> Result<(), StartError> {
        match self.0.first() {
            None => Ok(()),
            Some(InheritedSocket { name, address, .. }) => {
                Err(StartError::NoListener { name: name.clone(), address: address.clone() })
            }
        }
    }
}

fn take(passed: &mut ListenFd, index: usize) -> io::Result<(ListenAddress, BoundSocket)> {
    let unusable = || io::Error::new(io::ErrorKind::InvalidInput, "it is no TCP or Unix socket that listens");
    if let Ok(Some(listener)) = passed.take_tcp_listener(index) {
        require_listening(&listener)?;
        listener.set_nonblocking(true)?;
        return Ok((ListenAddress::Tcp(listener.local_addr()?), BoundSocket::Tcp(listener)));
    }
    let listener = passed.take_unix_listener(index).ok().flatten().ok_or_else(unusable)?;
    require_listening(&listener)?;
    listener.set_nonblocking(true)?;
    let path = listener.local_addr()?.as_pathname().ok_or_else(unusable)?.to_owned();
    Ok((ListenAddress::Unix(path), BoundSocket::Unix(listener)))
}

/// Refuses a connected socket, which a socket unit with `Accept=yes` passes.
fn require_listening(socket: &impl AsFd) -> io::Result<()> {
    if SockRef::from(socket).is_listener()? {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen (a socket unit needs Accept=no)"))
}
