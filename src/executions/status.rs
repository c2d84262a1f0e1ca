//! The progress of an execution, derived from its status.

/// Shows whether an execution can still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// `RUNNING` or `STOPPING`: changes within seconds.
    Live,
    /// `COMPLETED`, `ERRORED`, `STOPPED` or `TIMED_OUT`: final.
    Settled,
    /// The status is missing or undocumented.
    Unknown,
}

impl Progress {
    /// The progress for a `status` field.
    #[must_use]
    pub fn of(status: Option<&str>) -> Self {
        match status {
            Some("RUNNING" | "STOPPING") => Self::Live,
            Some("COMPLETED" | "ERRORED" | "STOPPED" | "TIMED_OUT") => Self::Settled,
            _ => Self::Unknown,
        }
    }

    /// The progress of two executions together: live if either is live, else unknown if either is unknown.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Live, _) | (_, Self::Live) => Self::Live,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Settled, Self::Settled) => Self::Settled,
        }
    }
}
