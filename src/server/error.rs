//! The reasons for which a server does not start, or does not take a new configuration.

use std::io;

use crate::config::ListenAddress;
use crate::gateway::GatewayError;
use crate::http_client::ClientSetupError;
use crate::tls::TlsError;

/// A configuration can't be served.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address can't be listened on.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address as it is configured.
        address: ListenAddress,
        /// The operating system's error.
        source: io::Error,
    },
    /// Another process listens at an address.
    #[error(
        "can't listen on {address}: another process listens there ({source}); `postern serve --take-over` replaces it"
    )]
    Occupied {
        /// The address as it is configured.
        address: ListenAddress,
        /// The operating system's error.
        source: io::Error,
    },
    /// An address overlaps one on which this process listens.
    #[error("can't listen on {address}: it overlaps {other}, on which this process listens")]
    Overlap {
        /// The address as it is configured.
        address: ListenAddress,
        /// The address of the other listener.
        other: ListenAddress,
    },
    /// A socket that the process was started with can't be used.
    #[error("the socket `{name}` that this process was started with can't be used: {source}")]
    Inherited {
        /// The service manager's name for the socket.
        name: String,
        /// The reason.
        source: io::Error,
    },
    /// A socket that the process was started with has an address that no listener has.
    #[error("this process was started with the socket `{name}` on {address}, and no listener has that address")]
    NoListener {
        /// The service manager's name for the socket.
        name: String,
        /// The socket's address.
        address: ListenAddress,
    },
    /// The upstream client can't be built.
    #[error(transparent)]
    Upstream(#[from] ClientSetupError),
    /// The gateway can't be built.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// A TLS file can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A worker thread or its runtime can't be started.
    #[error("can't start a worker: {0}")]
    Worker(io::Error),
}
