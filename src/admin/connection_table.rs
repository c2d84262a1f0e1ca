//! The open connections of the admin listener.
//!
//! A new connection is always accepted. When a peer has too many, or all peers together, the longest silent one is closed,
//! so that silent connections cannot keep probes out. A connection with a request that is being answered is the last to close.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::observe::AdminCloseReason;

/// Most open connections.
pub const MAX_CONNECTIONS: usize = 64;
/// Most open connections of one peer: a quarter, so that no peer alone closes the connections of others.
const MAX_PER_PEER: usize = MAX_CONNECTIONS / 4;

/// The open connections.
#[derive(Debug, Default)]
pub(super) struct ConnectionTable {
    connections: Mutex<Vec<Arc<AdminConnection>>>,
    ticks: AtomicU64,
}

/// An open connection.
#[derive(Debug)]
pub(super) struct AdminConnection {
    table: Arc<ConnectionTable>,
    /// The peer's address, IPv6 to its /64; `None` on a Unix socket.
    peer: Option<IpAddr>,
    /// The tick of the last sign of life; signs of life are numbered.
    last_tick: AtomicU64,
    is_answering: AtomicBool,
    close: Notify,
}

impl ConnectionTable {
    /// Adds a connection. Returns it, and the reason for which another one was closed, if any.
    pub(super) fn add(self: &Arc<Self>, peer: Option<IpAddr>) -> (Arc<AdminConnection>, Option<AdminCloseReason>) {
        let peer = peer.map(network);
        let mut connections = self.lock();
        let of_peer = connections.iter().filter(|other| peer.is_some() && other.peer == peer).count();
        let closed = if of_peer >= MAX_PER_PEER {
            close_longest_silent(&mut connections, |other| other.peer == peer);
            Some(AdminCloseReason::PeerLimit)
        } else if connections.len() >= MAX_CONNECTIONS {
            close_longest_silent(&mut connections, |_| true);
            Some(AdminCloseReason::Limit)
        } else {
            None
        };
        let connection = Arc::new(AdminConnection {
            table: Arc::clone(self),
            peer,
            last_tick: AtomicU64::new(self.next_tick()),
            is_answering: AtomicBool::new(false),
            close: Notify::new(),
        });
        connections.push(Arc::clone(&connection));
        (connection, closed)
    }

    /// Closes the longest silent connection, since the process lacks descriptors; returns false if there is none.
    pub(super) fn make_room(&self) -> bool {
        close_longest_silent(&mut self.lock(), |_| true)
    }

    fn next_tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<AdminConnection>>> {
        // No code under the lock can leave the list half changed.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn close_longest_silent(
    connections: &mut Vec<Arc<AdminConnection>>,
    select: impl Fn(&AdminConnection) -> bool,
) -> bool {
    let selected = connections.iter().enumerate().filter(|(_, connection)| select(connection));
    let rank = |connection: &AdminConnection| {
        (connection.is_answering.load(Ordering::Relaxed), connection.last_tick.load(Ordering::Relaxed))
    };
    let Some((position, _)) = selected.min_by_key(|(_, connection)| rank(connection)) else { return false };
    connections.swap_remove(position).close.notify_one();
    true
}

/// Returns the part of an address that stands for one peer.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & (u128::MAX << 64)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl AdminConnection {
    /// Waits until the connection is to close.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }

    /// Records whether a request is being answered.
    pub(super) fn set_answering(&self, is_answering: bool) {
        self.is_answering.store(is_answering, Ordering::Relaxed);
        self.touch();
    }

    /// Removes the connection: it has ended.
    pub(super) fn end(&self) {
        self.table.lock().retain(|other| !std::ptr::eq(Arc::as_ptr(other), self));
    }

    fn touch(&self) {
        self.last_tick.store(self.table.next_tick(), Ordering::Relaxed);
    }
}

/// A connection's socket, which reports reads and writes as signs of life.
#[derive(Debug)]
pub(super) struct AdminIo<S> {
    stream: S,
    connection: Arc<AdminConnection>,
}

impl<S> AdminIo<S> {
    pub(super) fn new(stream: S, connection: Arc<AdminConnection>) -> Self {
        Self { stream, connection }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AdminIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.connection.touch();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AdminIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if written.is_ready() {
            self.connection.touch();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> IpAddr {
        address.parse().expect("an address")
    }

    #[tokio::test]
    async fn a_peer_with_too_many_connections_loses_its_own_longest_silent_one() {
        for (attacker, same) in
            [("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::2"), ("::ffff:192.0.2.1", "192.0.2.1")]
        {
            let table = Arc::<ConnectionTable>::default();
            let (other, _) = table.add(Some(peer("198.51.100.7")));
            let all: Vec<_> = (0..MAX_PER_PEER).map(|_| table.add(Some(peer(attacker)))).collect();
            assert!(all.iter().all(|(_, closed)| closed.is_none()));
            all[0].0.touch();
            assert_eq!(table.add(Some(peer(same))).1, Some(AdminCloseReason::PeerLimit), "{attacker}");
            all[1].0.closed().await;
            assert!(table.lock().iter().any(|open| Arc::ptr_eq(open, &other)));
            assert_eq!(table.lock().len(), MAX_PER_PEER + 1);
        }
    }

    #[tokio::test]
    async fn the_longest_silent_connection_of_all_goes_when_the_table_is_full() {
        let table = Arc::<ConnectionTable>::default();
        let all: Vec<_> = (0..MAX_CONNECTIONS).map(|_| table.add(None).0).collect();
        all[0].set_answering(true);
        all[1].touch();
        assert_eq!(table.add(None).1, Some(AdminCloseReason::Limit));
        all[2].closed().await;
        assert!(table.make_room());
        all[3].closed().await;
        all[4].end();
        assert_eq!(table.lock().len(), MAX_CONNECTIONS - 2);
    }
}
