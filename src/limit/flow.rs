//! The unit of fairness in the queue for the upstream, and the two priorities in it.

/// Identifies a flow: the upstream requests of one linked account or session token.
pub type FlowId = u64;

/// Priority of an upstream request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// A caller waits for the response. Served before background requests, within the leeway of its flow.
    Foreground,
    /// The response renews a cached one, which callers receive meanwhile.
    Background,
}
