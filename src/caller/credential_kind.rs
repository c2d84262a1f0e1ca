//! The kinds of credentials, for metrics.

/// The kind of a credential, as the metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    /// A key that Postern issued.
    ClientKey,
    /// The client certificate of a TLS connection.
    Certificate,
    /// The connection to a trusted listener.
    Trusted,
    /// A JWT of a configured issuer.
    Jwt,
    /// Refold's org API key.
    OrgKey,
    /// Refold's own bearer token.
    SessionToken,
}

impl CredentialKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::ClientKey, Self::Certificate, Self::Trusted, Self::Jwt, Self::OrgKey, Self::SessionToken];

    /// The value of the metrics' label `credential`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientKey => "client_key",
            Self::Certificate => "certificate",
            Self::Trusted => "trusted",
            Self::Jwt => "jwt",
            Self::OrgKey => "org_key",
            Self::SessionToken => "session_token",
        }
    }
}
