//! What an execution's status says about whether it can still change.

/// Whether an execution can still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// `RUNNING` or `STOPPING`: it changes within seconds.
    Live,
    /// `COMPLETED`, `ERRORED`, `STOPPED` or `TIMED_OUT`: it stays as it is.
    Settled,
    /// No status, or one that the documentation does not know.
    Unknown,
}

impl Progress {
    /// Reads the `status` field of an execution.
    #[must_use]
    pub fn of(status: Option<&str>) -> Self {
        match status {
            Some("RUNNING" | "STOPPING") => Self::Live,
            Some("COMPLETED" | "ERRORED" | "STOPPED" | "TIMED_OUT") => Self::Settled,
            _ => Self::Unknown,
        }
    }

    /// What holds for two executions together: one that runs makes both live, one that is unknown makes both unknown.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Live, _) | (_, Self::Live) => Self::Live,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Settled, Self::Settled) => Self::Settled,
        }
    }
}
