//! A TCP connection to a server that a test can cut and mend.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes connections on to a server while it is whole.
pub(crate) struct Cable {
    address: SocketAddr,
    state: watch::Sender<State>,
}

/// The connections that a cable passes.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Whole,
    /// All connections but those that read the log.
    WithoutLog,
    Cut,
}

impl Cable {
    /// A cable to the server at a port of the loopback interface.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = watch::Sender::new(State::Whole);
        let present = state.subscribe();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(pass(near, port, present.clone()));
            }
        });
        Self { address, state }
    }

    /// The URL of a Redis server behind the cable.
    pub(crate) fn redis_url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Ends all connections and refuses new ones.
    pub(crate) fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Ends the connections that read the log, now and from now on.
    pub(crate) fn cut_log(&self) {
        self.state.send_replace(State::WithoutLog);
    }

    pub(crate) fn mend(&self) {
        self.state.send_replace(State::Whole);
    }
}

async fn pass(near: TcpStream, port: u16, state: watch::Receiver<State>) {
    if *state.borrow() == State::Cut {
        return;
    }
    let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (reads_log, is_of_log) = watch::channel(false);
    let ((near_reader, mut near_writer), (mut far_reader, far_writer)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = ask(near_reader, far_writer, (reads_log, state.clone())) => {}
        _ = copy(&mut far_reader, &mut near_writer) => {}
        () = until_cut(state, is_of_log) => {}
    }
}

/// Passes commands on, and notes whether one of them reads the log.
async fn ask(
    mut near: OwnedReadHalf,
    mut far: OwnedWriteHalf,
    (reads_log, state): (watch::Sender<bool>, watch::Receiver<State>),
) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(length @ 1..) = near.read(&mut bytes).await {
        // Such a command is small, and sent alone, so it arrives in one piece.
        if bytes[..length].windows(5).any(|word| word == b"XREAD") {
            reads_log.send_replace(true);
        }
        let is_cut = *reads_log.borrow() && *state.borrow() != State::Whole;
        if is_cut || far.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

/// Waits until a connection of this kind is cut.
async fn until_cut(mut state: watch::Receiver<State>, mut is_of_log: watch::Receiver<bool>) {
    let mut all = state.clone();
    let without_log = async {
        // An error if the connection has ended, and with it this wait.
        let _ = is_of_log.wait_for(|is| *is).await;
        let _ = state.wait_for(|state| *state != State::Whole).await;
    };
    tokio::select! {
        _ = all.wait_for(|state| *state == State::Cut) => {}
        () = without_log => {}
    }
}
