//! URLs of servers other than Refold.

use std::fmt;

use http::Uri;
use http::uri::PathAndQuery;

/// A URL, split into the parts that a client needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerUrl {
    /// Scheme and authority, with the path `/`.
    pub(super) origin: Uri,
    /// Path and query.
    pub(super) target: PathAndQuery,
}

impl ServerUrl {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let uri: Uri = text.parse().map_err(|_| "this is no URL")?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("the URL has to begin with http:// or https://");
        }
        let mut origin = uri.into_parts();
        let target = origin.path_and_query.replace(PathAndQuery::from_static("/"));
        let origin = Uri::from_parts(origin).map_err(|_| "this is no URL")?;
        Ok(Self { origin, target: target.unwrap_or(PathAndQuery::from_static("/")) })
    }

    /// Returns true if the URL holds a user name or password.
    pub(super) fn has_credentials(&self) -> bool {
        self.origin.authority().is_some_and(|authority| authority.as_str().contains('@'))
    }
}

/// Writes the URL without the parts that may be secret: user, password and query.
impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.origin.authority().map_or("", |authority| authority.as_str());
        let host = authority.rsplit('@').next().unwrap_or_default();
        write!(
            f,
            "{}://{host}{}",
            self.origin.scheme_str().unwrap_or_default(),
            self.target.path().trim_end_matches('/')
        )
    }
}
