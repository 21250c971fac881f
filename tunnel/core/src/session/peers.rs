//! The other endpoints and sidecars that an endpoint names to an agent.

use super::{Notice, Session, Side, Violation};
use crate::frame::{Kind, Malformed, Reader, put};
use crate::hello::Named;

impl Session {
    /// Names others to the agent, on this carrier or the next one. Replaces unsent names.
    pub fn name_peers(&mut self, named: Named) {
        self.peers_due = Some(named);
    }

    /// The names that the peer sent last; each list is returned once.
    pub fn take_peers(&mut self) -> Option<Named> {
        self.peers_told.take()
    }

    /// Appends the names after the other frames of the session, so that acknowledgements arrive first.
    pub(super) fn put_peers(&mut self, out: &mut Vec<u8>) {
        let Some(due) = self.peers_due.take() else { return };
        let mut payload = Vec::new();
        due.put(&mut payload);
        put(out, Kind::Peers, 0, 0, 0, &payload);
    }

    /// Takes the names from the peer. An endpoint ignores them, because it never dials.
    pub(super) fn told_of_peers(&mut self, payload: &[u8]) -> Result<(), Violation> {
        let named = Named::read(&mut Reader(payload)).ok_or(Malformed::Payload(Kind::Peers))?;
        if self.side == Side::Dialler && self.peers_told.replace(named).is_none() {
            self.notices.push_back(Notice::Peers);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Limits, identity::EndpointId};

    const NOW: Duration = Duration::ZERO;

    /// These endpoints, and a sidecar for each.
    fn named(names: &[&str]) -> Named {
        let id = |name: String| EndpointId::new(&name).expect("an id");
        let peers = names.iter().map(|name| id((*name).to_owned())).collect();
        Named { peers, sidecars: names.iter().map(|name| id(format!("{name}-sidecar"))).collect() }
    }

    /// Moves all pending frames from one end to the other.
    fn give(from: &mut Session, to: &mut Session) -> usize {
        let mut frames = Vec::new();
        from.transmit(from.epoch(), &mut frames, 1 << 16, NOW).expect("a carrier");
        to.receive(to.epoch(), &frames, NOW).expect("frames")
    }

    fn ends() -> [Session; 2] {
        let mut ends = [Side::Dialler, Side::Listener].map(|side| Session::new(side, Limits::default(), NOW));
        assert!(ends.iter_mut().all(|end| end.attach(1, NOW)));
        ends
    }

    #[test]
    fn an_agent_hears_of_the_endpoints_that_were_named_last_and_once() {
        let [mut agent, mut endpoint] = ends();
        endpoint.name_peers(named(&["b"]));
        endpoint.name_peers(named(&["b", "c"]));
        assert!(endpoint.has_output());
        give(&mut endpoint, &mut agent);
        assert_eq!(std::iter::from_fn(|| agent.poll()).filter(|notice| *notice == Notice::Peers).count(), 1);
        assert_eq!((agent.take_peers(), agent.take_peers()), (Some(named(&["b", "c"])), None));
        assert!(give(&mut agent, &mut endpoint) > 0 && endpoint.take_peers().is_none());
        endpoint.name_peers(Named::default());
        give(&mut endpoint, &mut agent);
        assert_eq!(agent.take_peers(), Some(Named::default()));
    }

    #[test]
    fn what_a_lost_carrier_did_not_take_comes_on_the_next_one() {
        let [mut agent, mut endpoint] = ends();
        endpoint.detach(1, NOW);
        endpoint.name_peers(named(&["b"]));
        assert!(!endpoint.has_output() && endpoint.attach(2, NOW) && agent.attach(2, NOW));
        give(&mut endpoint, &mut agent);
        assert_eq!(agent.take_peers(), Some(named(&["b"])));
    }

    #[test]
    fn an_endpoint_takes_no_word_on_others_and_a_wrong_one_ends_the_carrier() {
        let [mut agent, mut endpoint] = ends();
        agent.name_peers(named(&["b"]));
        give(&mut agent, &mut endpoint);
        assert_eq!(endpoint.take_peers(), None);
        give(&mut endpoint, &mut agent);
        let mut wrong = Vec::new();
        put(&mut wrong, Kind::Peers, 0, 0, 0, &[1, 1, b'-']);
        let expected = Violation::Malformed(Malformed::Payload(Kind::Peers));
        assert_eq!(agent.receive(1, &wrong, NOW), Err(expected));
    }
}
