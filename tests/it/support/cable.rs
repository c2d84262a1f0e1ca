//! A TCP connection to a server that a test can cut and mend.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes connections on to a server while it is whole.
pub(crate) struct Cable {
    address: SocketAddr,
    is_whole: watch::Sender<bool>,
}

impl Cable {
    /// A cable to the server at a port of the loopback interface.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let is_whole = watch::Sender::new(true);
        let state = is_whole.subscribe();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(pass(near, port, state.clone()));
            }
        });
        Self { address, is_whole }
    }

    /// The URL of a Redis server behind the cable.
    pub(crate) fn redis_url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Ends all connections and refuses new ones.
    pub(crate) fn cut(&self) {
        self.is_whole.send_replace(false);
    }

    pub(crate) fn mend(&self) {
        self.is_whole.send_replace(true);
    }
}

async fn pass(mut near: TcpStream, port: u16, mut is_whole: watch::Receiver<bool>) {
    if !*is_whole.borrow() {
        return;
    }
    let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => {}
        _ = is_whole.wait_for(|whole| !whole) => {}
    }
}
