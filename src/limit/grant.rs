//! The source of a granted request, to which it goes back if it is not sent.

/// The source of a granted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// The replica's own budget.
    Local,
    /// The fleet's budget, at this time of the server's clock, in microseconds.
    Fleet(u64),
    /// A time slot of this replica, which is alone. It passes, and does not come back.
    TimeSlot,
}
