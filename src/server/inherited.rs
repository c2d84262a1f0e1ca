//! Sockets that the process was started with (systemd's socket activation, sd_listen_fds(3)). They stay open in the service
//! manager while a process ends and the next one starts, so connections wait instead of being refused.

use std::io;
use std::os::fd::AsFd;

use listenfd::ListenFd;
use socket2::SockRef;

use super::StartError;
use super::socket::Bound;
use crate::config::ListenAddress;

/// Sockets that listen already, and for which a listener was not found yet.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Socket>);

#[derive(Debug)]
struct Socket {
    /// As the service manager calls it.
    name: String,
    address: ListenAddress,
    bound: Bound,
}

impl Inherited {
    /// Those that `LISTEN_FDS` counts, if `LISTEN_PID` says that they are for this process. Call it before the first thread
    /// starts: the variables are removed.
    ///
    /// # Errors
    /// If one of them is no TCP or Unix socket that listens.
    pub fn from_environment() -> Result<Self, StartError> {
        #[expect(clippy::disallowed_methods, reason = "part of the socket activation protocol")]
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut passed = ListenFd::from_env();
        let count = passed.len();
        let socket = |index: usize| {
            let name =
                names.get(index).filter(|name| !name.is_empty()).map_or("unknown".to_owned(), ToString::to_string);
            let taken = take(&mut passed, index);
            taken
                .map(|(address, bound)| Socket { name: name.clone(), address, bound })
                .map_err(|source| StartError::Inherited { name, source })
        };
        (0..count).map(socket).collect::<Result<_, _>>().map(Self)
    }

    /// The socket for an address.
    pub(super) fn take(&mut self, address: &ListenAddress) -> Option<Bound> {
        let index = self.0.iter().position(|socket| socket.address == *address)?;
        Some(self.0.swap_remove(index).bound)
    }

    /// Makes sure that there was a listener for each of them.
    pub(super) fn all_taken(&self) -> Result<(), StartError> {
        match self.0.first() {
            None => Ok(()),
            Some(Socket { name, address, .. }) => {
                Err(StartError::NoListener { name: name.clone(), address: address.clone() })
            }
        }
    }
}

fn take(passed: &mut ListenFd, index: usize) -> io::Result<(ListenAddress, Bound)> {
    let none = || io::Error::new(io::ErrorKind::InvalidInput, "it is no TCP or Unix socket that listens");
    if let Ok(Some(listener)) = passed.take_tcp_listener(index) {
        listens(&listener)?;
        listener.set_nonblocking(true)?;
        return Ok((ListenAddress::Tcp(listener.local_addr()?), Bound::Tcp(listener)));
    }
    let listener = passed.take_unix_listener(index).ok().flatten().ok_or_else(none)?;
    listens(&listener)?;
    listener.set_nonblocking(true)?;
    let path = listener.local_addr()?.as_pathname().ok_or_else(none)?.to_owned();
    Ok((ListenAddress::Unix(path), Bound::Unix(listener)))
}

/// With `Accept=yes` it would be a connection.
fn listens(socket: &impl AsFd) -> io::Result<()> {
    if SockRef::from(socket).is_listener()? {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen (a socket unit needs Accept=no)"))
}
