//! Types that the checked files name, with the little that they use.

/// Replaces `../src/caller`.
pub(crate) mod caller {
    use crate::tenant::OrgKey;

    #[derive(Debug)]
    pub(crate) struct Caller;

    impl Caller {
        pub(crate) fn own_org_key(&self) -> Option<OrgKey> {
            None
        }
    }
}

/// Replaces `../src/error.rs`.
pub(crate) mod error {
    use std::time::Duration;

    #[derive(Clone, Debug)]
    pub(crate) enum Reason {
        Overloaded,
    }

    #[derive(Clone, Debug)]
    pub(crate) struct ClientError;

    impl ClientError {
        pub(crate) fn new(Reason::Overloaded: Reason, _message: &'static str) -> Self {
            Self
        }

        pub(crate) fn retry_after(self, _time: Duration) -> Self {
            self
        }
    }
}
