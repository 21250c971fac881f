//! The ports that candidates have won so far in one decision.

use std::collections::BTreeMap;

use super::{Candidate, ListenerRef, Port};

/// A candidate that has won its ports.
pub(super) type Holder<'a> = (&'a ListenerRef, &'a Candidate);

/// Ports with their holders. Conflicts are looked up by server name, without a comparison with every holder of the
/// port.
#[derive(Debug, Default)]
pub(super) struct Taken<'a> {
    ports: BTreeMap<Port, Holders<'a>>,
    /// Number of candidates that have taken ports.
    turns: usize,
}

#[derive(Debug)]
struct Holders<'a> {
    /// The first holder. The others share the port with it: they have names, too, and read the same PROXY headers.
    first: Holder<'a>,
    /// The holder of each server name, with the turn in which the holder took the name.
    names: BTreeMap<&'a str, (usize, Holder<'a>)>,
}

impl<'a> Taken<'a> {
    pub(super) fn has(&self, port: Port) -> bool {
        self.ports.contains_key(&port)
    }

    /// The first holder of a port that does not share the port with a candidate.
    pub(super) fn conflict(&self, port: Port, candidate: &Candidate) -> Option<Holder<'a>> {
        let Holders { first, names } = self.ports.get(&port)?;
        let winner = first.1;
        if candidate.names.is_empty() || winner.names.is_empty() || winner.header != candidate.header {
            return Some(*first);
        }
        let holders = candidate.names.iter().filter_map(|name| names.get(name.as_str()));
        holders.min_by_key(|(turn, _)| *turn).map(|(_, holder)| *holder)
    }

    /// Gives a candidate its ports.
    pub(super) fn take(&mut self, holder: Holder<'a>) {
        self.turns += 1;
        let (_, candidate) = holder;
        for port in candidate.ports() {
            let holders = self.ports.entry(port).or_insert_with(|| Holders { first: holder, names: BTreeMap::new() });
            holders.names.extend(candidate.names.iter().map(|name| (name.as_str(), (self.turns, holder))));
        }
    }
}
