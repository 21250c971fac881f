//! The use of the ports of a gateway's Service, while its listeners want more of them than it may have.
//!
//! Candidates get their ports in rank order. A candidate that gets none changes nothing for the others, so adding or
//! removing it affects nobody else: only a candidate that gets ports, or had some, causes all claims to be decided
//! again.

use std::{collections::BTreeMap, sync::Arc};

use super::{Candidate, Lost, Port, Rank, Rules, reserved_port};

/// The candidates that got ports, at the last decision about all claims.
#[derive(Debug)]
pub(super) struct Filled {
    /// Room of the Service, in ports.
    room: usize,
    /// The room that was left after each candidate.
    left_after: BTreeMap<Arc<Rank>, usize>,
    /// The first holder of each port.
    first: BTreeMap<Port, Arc<Rank>>,
}

impl Filled {
    /// The state before any candidate has a port.
    pub(super) fn new(room: usize) -> Self {
        Self { room, left_after: BTreeMap::new(), first: BTreeMap::new() }
    }

    /// Records that the next candidate in rank order won its ports, which leaves this room.
    pub(super) fn take(&mut self, rank: &Arc<Rank>, candidate: &Candidate, left: usize) {
        self.left_after.insert(rank.clone(), left);
        for port in candidate.ports() {
            self.first.entry(port).or_insert_with(|| rank.clone());
        }
    }

    /// The room that is left for listeners that accept any port.
    pub(super) fn left(&self) -> usize {
        self.left_after.last_key_value().map_or(self.room, |(_, left)| *left)
    }

    /// Why a candidate that was not part of the decision gets no port; `None` if it might get some. `winner` returns
    /// the candidate of a holder.
    pub(super) fn refuses<'a>(
        &self,
        rules: &Rules,
        (rank, candidate): (&Rank, &Candidate),
        winner: impl Fn(&Rank) -> Option<&'a Candidate>,
    ) -> Option<Lost> {
        let mut fresh = 0;
        for port in candidate.ports() {
            if let Some(owner) = rules.reserved.get(&port) {
                return Some(reserved_port(port, owner));
            }
            let Some(first) = self.first.get(&port) else {
                fresh += 1;
                continue;
            };
            // The candidate may come before the holder, or share the port by server name.
            let holder = winner(first.as_ref()).filter(|_| **first < *rank)?;
            let is_shared = !candidate.names.is_empty() && !holder.names.is_empty();
            if is_shared && candidate.header == holder.header {
                return None;
            }
            return Some(rules.held_by(port, candidate, &first.listener.forward, holder));
        }
        let before = self.left_after.range::<Rank, _>(..rank).next_back();
        let room = before.map_or(self.room, |(_, left)| *left);
        (fresh > room).then(|| rules.too_many())
    }
}
