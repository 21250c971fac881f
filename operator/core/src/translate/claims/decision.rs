//! One decision about contending claims: the ports that the candidates have won so far.

use super::{
    Candidate, ListenerRef, Lost, Rules,
    namespaces::Namespaces,
    nesting::{Asks, Nesting},
    reserved_port,
    taken::{Holder, Taken},
};

/// The ports that the candidates have won so far. Candidates take their turns in rank order.
#[derive(Debug)]
pub(super) struct Decision<'a> {
    taken: Taken<'a>,
    nesting: Nesting,
    /// Ports that the Service has room for.
    room: usize,
}

impl<'a> Decision<'a> {
    pub(super) fn new(room: usize) -> Self {
        Self { taken: Taken::default(), nesting: Nesting::default(), room }
    }

    /// The room that is left, in ports.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// Gives a candidate its ports if all of them are available; returns the first one, or why the candidate loses.
    pub(super) fn decide(
        &mut self,
        rules: &Rules,
        namespaces: &mut Namespaces,
        asking: Holder<'a>,
    ) -> Result<u16, Lost> {
        let first = self.judge(rules, namespaces, asking)?;
        let (listener, candidate) = asking;
        self.taken.take(asking);
        for port in candidate.ports() {
            self.nesting.take(port, asks(listener, candidate));
        }
        namespaces.take(&listener.forward.namespace, candidate.ports());
        Ok(first)
    }

    /// The first port of a candidate, or why it loses. Subtracts the ports that nobody else holds from the room.
    fn judge(
        &mut self,
        rules: &Rules,
        namespaces: &Namespaces,
        (listener, candidate): Holder<'_>,
    ) -> Result<u16, Lost> {
        let mut first = None;
        let mut fresh = 0;
        for port in candidate.ports() {
            first.get_or_insert(port.1);
            if let Some(owner) = rules.reserved.get(&port) {
                return Err(reserved_port(port, owner));
            }
            fresh += usize::from(!self.taken.has(port));
            if let Some((holder, winner)) = self.taken.conflict(port, candidate) {
                return Err(rules.held_by(port, candidate, &holder.forward, winner));
            }
            if let Some(lost) = self.nesting.refuses(port, asks(listener, candidate), namespaces) {
                return Err(lost);
            }
        }
        if let Some(lost) = namespaces.refuses(rules, listener, candidate.ports(), 0) {
            return Err(lost);
        }
        self.room = self.room.checked_sub(fresh).ok_or_else(|| rules.too_many())?;
        Ok(first.unwrap_or(0))
    }
}

fn asks<'a>(listener: &'a ListenerRef, candidate: &'a Candidate) -> Asks<'a> {
    // Only gateways are shared by namespaces whose users do not know each other.
    let names: &[String] = if candidate.terms.is_some() { &candidate.names } else { &[] };
    Asks { listener, name: &candidate.name, names }
}
