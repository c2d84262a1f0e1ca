//! Sockets that the service manager opened (systemd's socket activation, sd_listen_fds(3)). They stay open there while one
//! process ends and the next one starts, so connections wait instead of being refused.

use std::io;
use std::os::fd::AsFd;

use listenfd::ListenFd;
use socket2::SockRef;

use super::error::StartError;
use super::socket::BoundSocket;
use crate::config::{Endpoint, ListenAddress, ListenerConfig};

/// Listening sockets that this process was started with and that no listener has taken yet.
#[derive(Debug, Default)]
pub struct InheritedSockets(Vec<InheritedSocket>);

#[derive(Debug)]
struct InheritedSocket {
    /// The service manager's name for it.
    name: String,
    endpoint: Endpoint,
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
                .map(|(endpoint, socket)| InheritedSocket { name: name.clone(), endpoint, socket })
                .map_err(|source| StartError::Inherited { name, source })
        };
        (0..count).map(inherit).collect::<Result<_, _>>().map(Self)
    }

    /// Takes the socket of a listener, if there is one.
    pub(super) fn take(&mut self, listener: &ListenerConfig) -> Option<BoundSocket> {
        let index = self.0.iter().position(|inherited| inherited.belongs_to(listener))?;
        Some(self.0.swap_remove(index).socket)
    }

    /// Fails if a socket has no listener, or accepts connections that its listener leaves to others. Nothing is bound yet.
    pub(super) fn require_listeners(&self, listeners: &[ListenerConfig]) -> Result<(), StartError> {
        for inherited in &self.0 {
            let Some(listener) = listeners.iter().find(|listener| inherited.belongs_to(listener)) else {
                return Err(inherited.without_listener());
            };
            if listener.ipv6_only && !inherited.endpoint.ipv6_only {
                let reason = "it accepts IPv4 connections too, and its listener has ipv6_only (a socket unit needs BindIPv6Only=ipv6-only)";
                let source = io::Error::new(io::ErrorKind::InvalidInput, reason);
                return Err(StartError::Inherited { name: inherited.name.clone(), source });
            }
        }
        Ok(())
    }

    /// Fails if a socket was not taken by a listener.
    pub(super) fn require_all_taken(&self) -> Result<(), StartError> {
        match self.0.first() {
            None => Ok(()),
            Some(inherited) => Err(inherited.without_listener()),
        }
    }
}

impl InheritedSocket {
    fn belongs_to(&self, listener: &ListenerConfig) -> bool {
        match &self.endpoint.address {
            // Two spellings of one path.
            ListenAddress::Unix(_) => self.endpoint.overlaps(&listener.endpoint()),
            address @ ListenAddress::Tcp(_) => *address == listener.address,
        }
    }

    fn without_listener(&self) -> StartError {
        StartError::NoListener { name: self.name.clone(), address: self.endpoint.address.clone() }
    }
}

fn take(passed: &mut ListenFd, index: usize) -> io::Result<(Endpoint, BoundSocket)> {
    let unusable = || io::Error::new(io::ErrorKind::InvalidInput, "it is no TCP or Unix socket that listens");
    if let Ok(Some(listener)) = passed.take_tcp_listener(index) {
        require_listening(&listener)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let ipv6_only = address.is_ipv6() && SockRef::from(&listener).only_v6()?;
        return Ok((Endpoint { address: ListenAddress::tcp(address), ipv6_only }, BoundSocket::Tcp(listener)));
    }
    let listener = passed.take_unix_listener(index).ok().flatten().ok_or_else(unusable)?;
    require_listening(&listener)?;
    listener.set_nonblocking(true)?;
    let path = listener.local_addr()?.as_pathname().ok_or_else(unusable)?.to_owned();
    Ok((Endpoint { address: ListenAddress::Unix(path), ipv6_only: false }, BoundSocket::Unix(listener)))
}

/// Refuses a connected socket, which a socket unit with `Accept=yes` passes.
fn require_listening(socket: &impl AsFd) -> io::Result<()> {
    if SockRef::from(socket).is_listener()? {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen (a socket unit needs Accept=no)"))
}
