//! Permits for requests that are sent beside, or in place of, one in flight.

/// Grants requests beyond the first one of an exchange, so that they count like any other.
pub trait ResendPermits: Sync {
    /// Held while the additional request is in flight.
    type Permit: Send;

    /// Waits for a permit for a request beside the first one. Returns `None` if it is refused.
    fn acquire_beside(&self) -> impl Future<Output = Option<Self::Permit>> + Send;

    /// Waits for a request in place of the first one, whose connection is closed. Returns false if it is refused.
    fn acquire(&self) -> impl Future<Output = bool> + Send;
}

/// No permits: requests are not sent again.
#[derive(Clone, Copy, Debug)]
pub(super) enum NoPermits {}

impl ResendPermits for NoPermits {
    type Permit = ();

    async fn acquire_beside(&self) -> Option<()> {
        match *self {}
    }

    async fn acquire(&self) -> bool {
        match *self {}
    }
}
