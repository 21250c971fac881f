//! The revisions that a proxy holds, which arrive in parts.

use proxy_api::{Held, MAX_AGENTS, MAX_LISTENERS, MAX_PEERS, MAX_SIDECARS};
use proxy_grpc::Status;

use super::room::Share;

/// Most bytes in memory of the revisions that one proxy holds: those of [`MAX_LISTENERS`] listeners and endpoint sets
/// and of [`MAX_AGENTS`] agents.
pub(super) const MAX_HELD: usize = 16 << 20;

/// Why a part is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// The revisions would be more than a proxy may hold.
    TooLarge,
    /// The part needs more room than was expected, and there is none.
    NoRoom,
}

impl Excess {
    /// The label of a metric, and the status for the proxy.
    pub(super) fn told(self) -> (&'static str, Status) {
        match self {
            Self::TooLarge => {
                let message = "more listeners, endpoint sets, agents, peers or sidecars than a proxy may hold";
                ("too_large", Status::resource_exhausted(message))
            }
            Self::NoRoom => {
                let message = "the operator has no memory for more revisions than it expects of this proxy; try again";
                ("busy", Status::resource_exhausted(message))
            }
        }
    }
}

/// The revisions that have arrived so far.
#[derive(Debug, Default)]
pub(super) struct Arriving {
    held: Held,
    weight: usize,
}

impl Arriving {
    /// Whether all parts have arrived.
    pub(super) fn is_whole(&self) -> bool {
        self.held.commit
    }

    /// The revisions that have arrived.
    pub(super) fn into_held(self) -> Held {
        self.held
    }

    /// Adds a part, and takes its room from the share.
    pub(super) fn add(&mut self, part: Held, share: &mut Share) -> Result<(), Excess> {
        // Revisions that are repeated count again: they were parsed, too.
        self.weight += part.weight();
        let counts = [
            (self.held.listeners.len() + part.listeners.len(), MAX_LISTENERS),
            (self.held.endpoints.len() + part.endpoints.len(), MAX_LISTENERS),
            (self.held.agents.len() + part.agents.len(), MAX_AGENTS),
            (self.held.peers.len() + part.peers.len(), MAX_PEERS),
            (self.held.sidecars.len() + part.sidecars.len(), MAX_SIDECARS),
        ];
        if self.weight > MAX_HELD || counts.iter().any(|(count, most)| count > most) {
            return Err(Excess::TooLarge);
        }
        if !share.grow(self.weight) {
            return Err(Excess::NoRoom);
        }
        let Held { listeners, endpoints, agents, peers, sidecars, commit } = part;
        self.held.listeners.extend(listeners);
        self.held.endpoints.extend(endpoints);
        self.held.agents.extend(agents);
        self.held.peers.extend(peers);
        self.held.sidecars.extend(sidecars);
        self.held.commit = commit;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proxy_api::{ListenerId, Origin, PARTS, Revision};

    use super::*;
    use crate::inputs::streams::room::Rooms;

    fn listeners(from: usize) -> Held {
        let id = |at: usize| ListenerId::new(Origin::port_forward("ns", format!("f{at}")), "l");
        let listeners = (from..from + PARTS).map(|at| (id(at), Revision::default())).collect();
        Held { listeners, ..Held::default() }
    }

    fn named(items: usize, part: impl Fn(BTreeMap<String, Revision>) -> Held) -> Held {
        part((0..items).map(|at| (at.to_string(), Revision::default())).collect())
    }

    // C2
    #[tokio::test]
    async fn the_sum_of_all_parts_is_bounded_in_number() {
        let rooms = Rooms::default();
        let mut share = rooms.held.share(0).await.expect("open");
        let mut arriving = Arriving::default();
        for at in 0..MAX_LISTENERS / PARTS {
            assert_eq!(arriving.add(listeners(at * PARTS), &mut share), Ok(()));
        }
        assert_eq!(arriving.add(listeners(MAX_LISTENERS), &mut share), Err(Excess::TooLarge));
        let parts = [
            (MAX_AGENTS, named(MAX_AGENTS + 1, |agents| Held { agents, ..Held::default() })),
            (MAX_PEERS, named(MAX_PEERS + 1, |peers| Held { peers, ..Held::default() })),
            (MAX_SIDECARS, named(MAX_SIDECARS + 1, |sidecars| Held { sidecars, ..Held::default() })),
        ];
        for (most, part) in parts {
            assert_eq!(Arriving::default().add(part, &mut share), Err(Excess::TooLarge), "{most}");
        }
        let most = named(MAX_PEERS, |peers| Held { peers, commit: true, ..Held::default() });
        let mut arriving = Arriving::default();
        assert!(arriving.add(most, &mut share).is_ok() && arriving.is_whole());
        assert_eq!(arriving.into_held().peers.len(), MAX_PEERS);
    }

    // C2
    #[tokio::test]
    async fn the_sum_of_all_parts_is_bounded_in_memory_of_one_proxy_and_of_all() {
        let rooms = Rooms::default();
        let mut share = rooms.held.share(0).await.expect("open");
        let mut arriving = Arriving::default();
        // Each part is the same, and has some 270 KiB.
        let refused = (0..200).find_map(|_| arriving.add(listeners(0), &mut share).err());
        assert_eq!(refused, Some(Excess::TooLarge));
        assert!(arriving.weight > MAX_HELD && arriving.into_held().listeners.len() == PARTS);
        drop(share);
        let _others = rooms.held.share(64 << 20).await.expect("open");
        let mut share = rooms.held.share(0).await.expect("open");
        let none = Arriving::default().add(listeners(0), &mut share).err();
        assert_eq!(none, Some(Excess::NoRoom));
        assert_eq!((Excess::NoRoom.told().0, Excess::TooLarge.told().0), ("busy", "too_large"));
    }
}
