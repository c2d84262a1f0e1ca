//! Errors of the client: a client that can't be built, and an exchange without a complete response.

use std::error::Error;
use std::fmt;

/// The error of a body that fails before it is complete.
pub type BodyError = Box<dyn Error + Send + Sync>;

/// The error of an exchange without a complete response: its kind and, for the operator alone, its cause.
///
/// The cause names addresses and certificates, so no text of this error is sent to a caller.
#[derive(Debug)]
pub struct TransportError {
    kind: TransportErrorKind,
    /// The step of opening a connection that failed, if one did.
    step: Option<ConnectStep>,
    cause: Option<Box<str>>,
}

/// The part of an exchange in which it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangePhase {
    /// Opening a connection: name look-up, TCP, TLS.
    Connect,
    /// Sending the request and reading the response.
    Transfer,
}

/// A step of opening a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectStep {
    /// The look-up of a host's addresses.
    LookUp,
    /// A TCP connection to one of them.
    Tcp,
    /// The TLS handshake with a proxy.
    ProxyTls,
    /// The tunnel through a proxy.
    Tunnel,
    /// The TLS handshake with the server.
    Tls,
}

impl fmt::Display for ConnectStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LookUp => "name look-up",
            Self::Tcp => "TCP connect",
            Self::ProxyTls => "TLS handshake with the proxy",
            Self::Tunnel => "proxy CONNECT",
            Self::Tls => "TLS handshake",
        })
    }
}

/// The kind of a [`TransportError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportErrorKind {
    /// No connection, or it was lost before the response began.
    Unreachable,
    /// The response took too long.
    Timeout,
    /// The response is larger than the client reads.
    TooLarge {
        /// Most bytes that are read.
        limit: usize,
    },
    /// The response's body ended early.
    Incomplete,
    /// The response is not HTTP, or has a content coding that was not asked for.
    InvalidResponse,
}

impl TransportError {
    /// Makes an error from the one that caused it, with the texts of its whole chain of sources.
    #[must_use]
    pub fn caused_by(kind: TransportErrorKind, cause: &(dyn Error + 'static)) -> Self {
        let mut text = cause.to_string();
        let mut next = cause.source();
        while let Some(source) = next {
            let part = source.to_string();
            // Some errors, such as `io::Error`, already end with the text of their source.
            if !text.ends_with(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            next = source.source();
        }
        Self { kind, step: None, cause: Some(text.into()) }
    }

    /// Marks the error as one of a step of opening a connection.
    #[must_use]
    pub fn while_connecting(self, step: ConnectStep) -> Self {
        Self { step: Some(step), ..self }
    }

    /// Returns the part of the exchange that failed.
    #[must_use]
    pub fn phase(&self) -> ExchangePhase {
        self.step.map_or(ExchangePhase::Transfer, |_| ExchangePhase::Connect)
    }

    /// Returns the step of opening a connection that failed; `None` if there was a connection.
    #[must_use]
    pub fn connect_step(&self) -> Option<ConnectStep> {
        self.step
    }

    /// Returns the kind of error.
    #[must_use]
    pub fn kind(&self) -> TransportErrorKind {
        self.kind
    }
}

impl From<TransportErrorKind> for TransportError {
    fn from(kind: TransportErrorKind) -> Self {
        Self { kind, step: None, cause: None }
    }
}

impl Error for TransportError {}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TransportErrorKind::Unreachable => f.write_str("the server can't be reached")?,
            TransportErrorKind::Timeout => f.write_str("the server did not respond in time")?,
            TransportErrorKind::TooLarge { limit } => write!(f, "the response is larger than {limit} bytes")?,
            TransportErrorKind::Incomplete => f.write_str("the response ended early")?,
            TransportErrorKind::InvalidResponse => f.write_str("the response is invalid")?,
        }
        self.cause.as_ref().map_or(Ok(()), |cause| write!(f, ": {cause}"))
    }
}

/// The reason why a client can't be built.
#[derive(Debug, thiserror::Error)]
pub enum ClientSetupError {
    /// The file of certificate authorities can't be used.
    #[error("ca_file {path}: {reason}")]
    CaFile {
        /// Path of the file; masked if it could be a credential.
        path: String,
        /// Why it can't be used.
        reason: String,
    },
    /// TLS can't be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}
