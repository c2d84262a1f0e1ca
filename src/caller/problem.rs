//! Reasons for which no credential of a request identifies its caller. The response never says which part was wrong; log and
//! metrics do.

use crate::error::{ClientError, Reason};

/// A reason for which a request has no known caller, apart from those of an issuer's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CredentialProblem {
    #[error("the request has no credential, and its listener is not trusted")]
    Missing,
    #[error("x-api-key is neither a client key nor the org key of a tenant with mode `validate`")]
    UnknownKey,
    #[error("Authorization is no bearer token")]
    NoBearerToken,
    #[error("the token is of no configured issuer, and the listener does not accept session tokens")]
    NoIssuer,
    #[error("the client certificate of the connection has expired")]
    ExpiredCertificate,
    #[error("Refold has refused this session token a moment ago")]
    RefusedSessionToken,
}

impl CredentialProblem {
    /// The value of the metrics' label `reason`.
    fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::UnknownKey => "unknown_key",
            Self::NoBearerToken => "no_bearer_token",
            Self::NoIssuer => "no_issuer",
            Self::ExpiredCertificate => "expired_certificate",
            Self::RefusedSessionToken => "refused_session_token",
        }
    }
}

impl From<CredentialProblem> for ClientError {
    fn from(problem: CredentialProblem) -> Self {
        let refused = match problem {
            CredentialProblem::ExpiredCertificate => {
                let message = "the client certificate of this connection has expired; connect with a new one";
                Self::new(Reason::ExpiredCredentials, message)
            }
            _ => Self::invalid_credentials(),
        };
        refused.with_credential_problem(problem.label()).caused_by(problem)
    }
}
