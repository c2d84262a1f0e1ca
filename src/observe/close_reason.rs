//! The reasons for which Postern closes a connection: the label `reason` of `postern_connections_closed_total` and
//! `postern_admin_connections_closed_total`.

/// The reason for which Postern closed a connection of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseReason {
    /// All places were taken, and no known caller had ever sent a request over it.
    LimitUnidentified = 1,
    /// All places were taken, and it was idle.
    LimitIdle,
    /// Connections without a known caller held too much memory, this one most.
    UnidentifiedMemory,
    /// Too many HTTP/2 frames that carry nothing.
    FrameFlood,
    /// No byte arrived in time.
    FirstByteTimeout,
    /// A request head did not arrive in time.
    HeaderTimeout,
    /// The connection was idle, or its peer did not read the response.
    IdleTimeout,
}

impl CloseReason {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::LimitUnidentified,
        Self::LimitIdle,
        Self::UnidentifiedMemory,
        Self::FrameFlood,
        Self::FirstByteTimeout,
        Self::HeaderTimeout,
        Self::IdleTimeout,
    ];

    /// The value of the label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LimitUnidentified => "limit_unidentified",
            Self::LimitIdle => "limit_idle",
            Self::UnidentifiedMemory => "unidentified_memory",
            Self::FrameFlood => "frame_flood",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::HeaderTimeout => "header_timeout",
            Self::IdleTimeout => "idle_timeout",
        }
    }
}

/// The reason for which Postern closed a connection of the admin listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminCloseReason {
    /// The listener had too many connections, and this one was silent for longest.
    Limit,
    /// The peer had too many connections, and this one was silent for longest.
    PeerLimit,
    /// A request head did not arrive in time.
    HeaderTimeout,
    /// The connection was open for too long.
    Lifetime,
}

impl AdminCloseReason {
    /// All reasons.
    pub const ALL: [Self; 4] = [Self::Limit, Self::PeerLimit, Self::HeaderTimeout, Self::Lifetime];

    /// The value of the label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::PeerLimit => "peer_limit",
            Self::HeaderTimeout => "header_timeout",
            Self::Lifetime => "lifetime",
        }
    }
}
