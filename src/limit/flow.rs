//! The units of fairness in the queue for the upstream, and the two priorities in it.

/// Identifies a flow: the upstream requests of one linked account or session token. The same on all replicas of a fleet.
pub type FlowId = u64;

/// A flow and the credential that it belongs to. Fairness is first between credentials, then between the flows of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Stands for a client key, an issuer or a listener of one tenant. The same on all replicas of a fleet.
    pub credential: u64,
    /// The linked account or session token.
    pub account: FlowId,
}

/// Priority of an upstream request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Urgency {
    /// A caller waits for the response. Served before background requests, within the leeway of its flow.
    Foreground,
    /// The response renews a cached one, which callers receive meanwhile.
    Background,
}

impl Urgency {
    /// Both urgencies, the more urgent one first.
    pub(super) const ALL: [Self; 2] = [Self::Foreground, Self::Background];
}
