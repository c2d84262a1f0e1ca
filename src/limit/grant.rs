//! Where a granted request comes from, and so where it goes back to if it is not sent.

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
