//! What an endpoint knows of the agents that connect to it and are lost, for the log of the server.

use std::net::SocketAddr;

use tunnel_core::Session;
use tunnel_core::attendance::Seen;
use tunnel_core::identity::AgentName;
use tunnel_core::notices::Notice;
use tunnel_core::registry::Key;

use super::{Endpoint, Held};
use crate::CarryEnd;

impl Endpoint {
    /// Takes the lines to log now about agents that have connected or were lost. Call it about once a second.
    pub fn attendance(&self) -> Vec<Notice> {
        let (registry, sessions) = (self.registry.borrow(), self.sessions.borrow());
        let seen = registry.instances().iter().filter_map(|(key, known)| {
            let attached = sessions.get(key)?.tunnel.look(Session::is_attached);
            Some(Seen { key, since: known.since, attached })
        });
        self.attendance.borrow_mut().observe(seen, self.start.elapsed())
    }

    /// Notes that an instance of this agent was admitted on a connection.
    pub(super) fn note_admitted(&self, key: &Key, agent: &AgentName, from: SocketAddr) {
        self.attendance.borrow_mut().admitted(key, agent, from);
    }

    /// Notes why the connection of a session has ended.
    pub(super) fn note_end_of_carrier(&self, held: &Held, end: &CarryEnd) {
        let why = match end {
            // A later connection carries the session, or whoever ended the session has noted why.
            CarryEnd::Replaced | CarryEnd::Stale | CarryEnd::Lost(_) => return,
            _ if held.leaving.get() => "the agent was stopped".to_owned(),
            _ => end.to_string(),
        };
        self.attendance.borrow_mut().ended(&held.key, why);
    }
}
