//! Errors of the client: a client that can't be built, and an exchange without a complete response.

use std::path::PathBuf;

/// The error of a body that ends before its end.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The reason why an exchange has no complete response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection, or it was lost before the response began.
    #[error("the server can't be reached")]
    Unreachable,
    /// The response took too long.
    #[error("the server did not respond in time")]
    Timeout,
    /// The response is larger than the client reads.
    #[error("the response is larger than {limit} bytes")]
    TooLarge {
        /// Most bytes that are read.
        limit: usize,
    },
    /// The response is not HTTP, ended early, or has a content coding that was not asked for.
    #[error("the response is invalid")]
    InvalidResponse,
}

/// The reason why a client can't be built.
#[derive(Debug, thiserror::Error)]
pub enum ClientSetupError {
    /// The file of certificate authorities can't be used.
    #[error("ca_file {}: {reason}", path.display())]
    CaFile {
        /// Path of the file.
        path: PathBuf,
        /// Why it can't be used.
        reason: String,
    },
    /// TLS can't be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}
