//! The bounds of a door.

use super::Rate;

/// Which connection is evicted if there is no place for a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evict {
    /// No connection: the newcomer is refused.
    Never,
    /// A connection that waits for its peer, and none whose request is being answered.
    Silent,
    /// A connection that waits for its peer, otherwise one whose request is being answered: a newcomer always gets a
    /// place.
    Any,
    /// Like `Any`, but a request that is being answered is evicted only if its source has more than four times as many
    /// connections as any source with a waiting one. So sources with silent connections do not end the requests of one
    /// with more, and sources with many slow requests do not end the connections of one with few.
    WorkLast,
}

/// How often strangers may connect.
///
/// The rate of all is shared fairly. Half of its burst is reserved for sources that have not used up their fair share:
/// the part of one source in half of the rate, among the remembered strangers and one more. As that half runs low, less
/// of it goes to sources that have used some. So greedy sources do not keep out one that connects now and then. The
/// sources of an IPv6 /64 have one fair share together, and three times the rate of a source, which they share in the
/// same way. Half of the rate is reserved for sources of which a peer has authenticated lately; they use spare tokens
/// of the other half, too. Every connection counts towards the rate of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Rate of all sources together.
    pub all: Rate,
    /// Rate of one source. A known source is not bound by the rate of its network.
    pub source: Rate,
    /// Whether the handshakes of admitted connections begin evenly, at the rate of all: see [`Places::turn`](super::Places::turn).
    pub evenly: bool,
}

/// The bounds of a door. It never has more connections than the sum of `strangers` and `known`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most connections of strangers.
    pub strangers: usize,
    /// Most connections of strangers from one source: from one address. An IPv6 /64 has three times as many, but no more
    /// than three quarters of all unless one source may have more.
    pub per_source: usize,
    /// Most connections of peers that have authenticated; 0 at a door without authentication.
    pub known: usize,
    /// Which connection is evicted for a newcomer.
    pub evict: Evict,
    /// How often strangers may connect. Absent: without a limit.
    pub rates: Option<Rates>,
}
