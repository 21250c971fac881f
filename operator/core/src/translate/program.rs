//! The configuration of one group, updated one listener at a time, and its snapshots.

mod snapshot;
mod tunnels;

use std::collections::{BTreeMap, BTreeSet};

use proxy_api::{Backend, DigestSum, EndpointSet, ListenerId, Offer, Origin, Target, Transport, Version};

pub use self::snapshot::{Published, Snapshot};
use crate::translate::claims::Port;

/// Endpoint sets by name.
pub(crate) type Sets = BTreeMap<String, EndpointSet>;

/// The current configuration of one group.
#[derive(Debug, Default)]
pub(crate) struct Program {
    now: Snapshot,
    sum: DigestSum,
    /// Number of backends that use each endpoint set.
    uses: BTreeMap<String, usize>,
    /// Number of backends that use each agent, by its uid.
    agent_uses: BTreeMap<String, usize>,
    /// The listeners of each port: one, or several that share the port by server name.
    ports: BTreeSet<(Port, ListenerId)>,
    /// Ports of suspended forwards: no proxy listens there, but the claims stay.
    held: BTreeMap<Origin, BTreeSet<Port>>,
    /// Whether something changed since the last snapshot.
    is_changed: bool,
    /// Whether the ports changed since `take_ports_changed`.
    ports_changed: bool,
}

fn ports(offer: &Offer) -> impl Iterator<Item = Port> + use<> {
    let listener = match offer {
        Offer::Supported(listener) => Some((**listener).sockets()),
        Offer::Unsupported { .. } => None,
    };
    listener.into_iter().flatten().map(|socket| (socket.transport, socket.port))
}

fn share(one: &Offer, other: &Offer) -> bool {
    matches!((one, other), (Offer::Supported(one), Offer::Supported(other)) if one.shares_with(other))
}

/// The backends of a listener.
pub(crate) fn backends(offer: &Offer) -> &[Backend] {
    match offer {
        Offer::Supported(listener) => listener.backends.as_slice(),
        Offer::Unsupported { .. } => &[],
    }
}

/// Names of the endpoint sets of a listener, one for each backend that uses one.
pub(crate) fn sets(offer: &Offer) -> impl Iterator<Item = &String> {
    backends(offer).iter().filter_map(|backend| match &backend.target {
        Target::Endpoints(name) => Some(name),
        Target::Address { .. } | Target::Tunnel { .. } => None,
    })
}

impl Program {
    /// The ports of all listeners, including suspended ones.
    pub(crate) fn ports(&self) -> BTreeSet<(Transport, u16)> {
        self.ports.iter().map(|(port, _)| *port).chain(self.held.values().flatten().copied()).collect()
    }

    /// Sets the ports that a suspended forward keeps; empty if the forward is not suspended.
    pub(crate) fn hold(&mut self, key: &Origin, ports: &BTreeSet<Port>) {
        let before =
            if ports.is_empty() { self.held.remove(key) } else { self.held.insert(key.clone(), ports.clone()) };
        self.ports_changed |= before.unwrap_or_default() != *ports;
    }

    /// Removes a listener, with endpoint sets that no other listener uses.
    pub(crate) fn remove(&mut self, id: &ListenerId) {
        let Some(old) = self.now.listeners.remove(id) else { return };
        self.is_changed = true;
        self.sum.remove_listener(id, old.offer.revision());
        for port in ports(&old.offer) {
            self.ports_changed |= self.ports.remove(&(port, id.clone()));
        }
        self.disuse_agents(&old.offer);
        for name in sets(&old.offer) {
            let Some(uses) = self.uses.get_mut(name) else { continue };
            *uses -= 1;
            if *uses == 0 {
                self.uses.remove(name);
                if let Some(set) = self.now.endpoints.remove(name) {
                    self.sum.remove_endpoints(name, &set);
                }
            }
        }
    }

    /// Adds or replaces a listener under this version number, and removes listeners that hold one of its ports.
    pub(crate) fn put(&mut self, id: &ListenerId, offer: &Offer, number: u64, all: &Sets) {
        if self.now.listeners.get(id).is_some_and(|now| now.offer.revision() == offer.revision()) {
            return;
        }
        // The sets are counted before the removal, so that sets of both versions stay.
        let used: Vec<String> = sets(offer).cloned().collect();
        for name in &used {
            *self.uses.entry(name.clone()).or_default() += 1;
        }
        let changed_before = self.ports_changed;
        let has_same_ports = self.now.listeners.get(id).is_some_and(|now| ports(&now.offer).eq(ports(offer)));
        self.remove(id);
        self.is_changed = true;
        self.ports_changed = changed_before || !has_same_ports;
        for other in self.conflicting(offer) {
            self.remove(&other);
        }
        for name in &used {
            if !self.now.endpoints.contains_key(name)
                && let Some(set) = all.get(name)
            {
                self.sum.add_endpoints(name, set);
                self.now.endpoints.insert(name.clone(), set.clone());
            }
        }
        self.ports.extend(ports(offer).map(|port| (port, id.clone())));
        self.sum.add_listener(id, offer.revision());
        self.use_agents(offer);
        self.now.listeners.insert(id.clone(), Published { offer: offer.clone(), since: number });
    }

    /// The listeners that hold a port of this one and do not share it.
    fn conflicting(&self, offer: &Offer) -> BTreeSet<ListenerId> {
        let holders = ports(offer).flat_map(|port| {
            let first = (port, ListenerId::new(Origin::default(), ""));
            self.ports.range(first..).take_while(move |(other, _)| *other == port).map(|(_, id)| id)
        });
        let shares = |id: &ListenerId| self.now.listeners.get(id).is_some_and(|now| share(&now.offer, offer));
        holders.filter(|id| !shares(id)).cloned().collect()
    }

    /// Like [`Program::put`], but removes the listener if another one holds a port of it.
    pub(crate) fn put_if_free(&mut self, id: &ListenerId, offer: &Offer, number: u64, all: &Sets) {
        if self.conflicting(offer).iter().all(|holder| holder == id) {
            self.put(id, offer, number, all);
        } else {
            self.remove(id);
        }
    }

    /// Replaces an endpoint set, if any listener uses the set.
    pub(crate) fn set_endpoints(&mut self, name: &str, set: &EndpointSet) {
        let old = self.now.endpoints.get(name);
        if old == Some(set) || !self.uses.contains_key(name) {
            return;
        }
        if let Some(old) = old {
            self.sum.remove_endpoints(name, old);
        }
        self.sum.add_endpoints(name, set);
        self.now.endpoints.insert(name.to_owned(), set.clone());
        self.is_changed = true;
    }

    /// Sets an endpoint set that no listener names, such as the addresses of the fleet. An empty one is left out.
    pub(crate) fn surround(&mut self, name: &str, set: EndpointSet) {
        let old = self.now.endpoints.get(name);
        if old.map_or(set.endpoints.is_empty(), |old| *old == set) {
            return;
        }
        if let Some(old) = self.now.endpoints.remove(name) {
            self.sum.remove_endpoints(name, &old);
        }
        if !set.endpoints.is_empty() {
            self.sum.add_endpoints(name, &set);
            self.now.endpoints.insert(name.to_owned(), set);
        }
        self.is_changed = true;
    }

    /// Whether the ports changed since the last call, or the program was never published.
    pub(crate) fn take_ports_changed(&mut self) -> bool {
        std::mem::take(&mut self.ports_changed) || self.now.version.number == 0
    }

    /// A snapshot with this version, if anything changed since the last one.
    pub(crate) fn publish(&mut self, version: &Version) -> Option<Snapshot> {
        if !std::mem::take(&mut self.is_changed) && self.now.version.number > 0 {
            return None;
        }
        self.now.version = version.clone();
        self.now.digest = self.sum.digest();
        Some(self.now.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(port: u16, set: &str) -> Offer {
        let text = format!(
            "{{\"revision\": \"{port}{set}\", \"socket\": {{\"transport\": \"TCP\", \"bind\": \"All\", \"port\": {port}}}, \
             \"backends\": [{{\"id\": \"b\", \"weight\": 1, \"target\": {{\"endpoints\": \"{set}\"}}}}], \"policy\": \"Random\", \
             \"outlier\": {{\"consecutiveFailures\": 1, \"ejectSeconds\": 1}}, \"timeouts\": {{\"connectSeconds\": 5, \
             \"idleSeconds\": 3600, \"halfCloseSeconds\": 300, \"udpIdleSeconds\": 60, \"keepaliveSeconds\": 60}}, \"retry\": \
             {{\"attempts\": 3, \"initialBackoffMillis\": 50, \"maxBackoffMillis\": 2000}}, \"sessions\": {{\"onUpdate\": \
             \"Keep\", \"onUnhealthy\": \"Keep\", \"drainSeconds\": 300}}, \"accessLog\": {{\"mode\": \"Close\", \
             \"intervalSeconds\": 0}}, \"destinations\": {{\"refuseLocal\": false, \"cidrs\": []}}}}"
        );
        serde_json::from_str(&text).expect("an offer")
    }

    fn id(name: &str) -> ListenerId {
        format!("ns/f/{name}").parse().expect("an id")
    }

    #[test]
    fn an_endpoint_set_lives_as_long_as_a_listener_uses_it_and_the_digest_follows() {
        let set = EndpointSet::from_iter(["10.0.0.1:1".parse::<std::net::SocketAddr>().expect("address")]);
        let all = Sets::from([("x".to_owned(), set.clone()), ("y".to_owned(), set)]);
        let mut program = Program::default();
        program.put(&id("a"), &offer(1, "x"), 1, &all);
        program.put(&id("b"), &offer(2, "x"), 1, &all);
        program.put(&id("a"), &offer(1, "y"), 2, &all);
        let version = Version { epoch: String::new(), number: 2 };
        let snapshot = program.publish(&version).expect("changed");
        assert_eq!(snapshot.endpoints.keys().cloned().collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(snapshot.digest, snapshot.configuration().digest());
        assert!(program.publish(&version).is_none(), "nothing changed since");
        assert!(program.take_ports_changed() && !program.take_ports_changed());
        program.put(&id("a"), &offer(1, "x"), 2, &all);
        program.put(&id("a"), &offer(1, "y"), 2, &all);
        assert!(!program.take_ports_changed(), "another revision on the same port");
        program.remove(&id("b"));
        assert!(program.take_ports_changed());
        let next = program.publish(&Version { number: 3, ..version }).expect("changed");
        assert_eq!(next.endpoints.keys().cloned().collect::<Vec<_>>(), ["y"]);
        assert_eq!((next.listeners[&id("a")].since, &next.digest), (2, &next.configuration().digest()));
        let steps = next.changes_since(&snapshot);
        assert_eq!((steps.len(), steps[0].removals.len(), steps[0].endpoint_removals.len()), (1, 1, 1));
        assert!(steps[0].upserts.is_empty() && steps[0].commit);
    }

    #[test]
    fn a_set_that_no_listener_names_stays_until_it_is_empty() {
        let set = |texts: &[&str]| -> EndpointSet {
            texts.iter().map(|text| text.parse::<std::net::SocketAddr>().expect("address")).collect()
        };
        let mut program = Program::default();
        let mut publish = |texts: &[&str], number: u64| {
            program.surround("fleet", set(texts));
            let snapshot = program.publish(&Version { epoch: String::new(), number })?;
            assert_eq!(snapshot.digest, snapshot.configuration().digest());
            Some(snapshot.endpoints.get("fleet").map_or(0, |set| set.endpoints.len()))
        };
        assert_eq!(publish(&[], 1), Some(0), "the first snapshot");
        assert_eq!(publish(&["10.0.0.1:0"], 2), Some(1));
        assert_eq!(publish(&["10.0.0.1:0"], 3), None, "nothing changed");
        assert_eq!(publish(&["10.0.0.1:0", "10.0.0.2:0"], 4), Some(2));
        assert_eq!(publish(&[], 5), Some(0));
        assert_eq!(publish(&[], 6), None);
    }

    #[test]
    fn a_port_has_one_listener() {
        let all = Sets::new();
        let mut program = Program::default();
        program.put(&id("a"), &offer(1, "x"), 1, &all);
        program.put_if_free(&id("b"), &offer(1, "x"), 1, &all);
        assert_eq!(program.ports.iter().map(|(_, id)| id).collect::<Vec<_>>(), [&id("a")]);
        program.put(&id("b"), &offer(1, "x"), 2, &all);
        assert_eq!(program.now.listeners.keys().collect::<Vec<_>>(), [&id("b")]);
        program.put(&id("a"), &offer(2, "x"), 3, &all);
        program.remove(&id("b"));
        assert_eq!(program.ports().into_iter().collect::<Vec<_>>(), [(Transport::Tcp, 2)]);
    }

    /// A program whose first snapshot is published, with these listeners, each on a port of its own.
    fn running(listeners: &[(&str, u16)]) -> Program {
        let mut program = Program::default();
        for (name, port) in listeners {
            program.put(&id(name), &offer(*port, "x"), 1, &Sets::new());
        }
        assert!(program.publish(&Version { epoch: String::new(), number: 1 }).is_some());
        assert!(program.take_ports_changed(), "the first ports");
        program
    }

    #[test]
    fn ports_that_change_twice_have_changed() {
        let mut program = running(&[("a", 1), ("b", 2)]);
        program.remove(&id("a"));
        program.remove(&id("b"));
        assert!(program.take_ports_changed() && !program.take_ports_changed());
        let key = Origin::port_forward("ns", "suspended");
        let hold = |program: &mut Program, port: u16| program.hold(&key, &BTreeSet::from([(Transport::Tcp, port)]));
        hold(&mut program, 7);
        assert!(program.take_ports_changed());
        hold(&mut program, 7);
        assert!(!program.take_ports_changed(), "the same ports");
        hold(&mut program, 8);
        hold(&mut program, 9);
        assert!(program.take_ports_changed());
    }

    #[test]
    fn endpoints_are_published_if_they_change_and_a_listener_uses_them() {
        let set = |text: &str| EndpointSet::from_iter([text.parse::<std::net::SocketAddr>().expect("address")]);
        let mut program = running(&[("a", 1)]);
        let mut publish = |name: &str, text: &str, number: u64| {
            program.set_endpoints(name, &set(text));
            program.publish(&Version { epoch: String::new(), number }).map(|snapshot| snapshot.endpoints.len())
        };
        assert_eq!(publish("y", "10.0.0.1:1", 2), None, "no listener uses them");
        assert_eq!(publish("x", "10.0.0.1:1", 3), Some(1));
        assert_eq!(publish("x", "10.0.0.1:1", 4), None, "they are the same");
        assert_eq!(publish("x", "10.0.0.2:1", 5), Some(1));
    }

    #[test]
    fn a_published_listener_is_another_one_in_another_revision_or_since_another_version() {
        let published = |set: &str, since: u64| Published { offer: offer(1, set), since };
        assert_eq!(published("x", 1), published("x", 1));
        assert_ne!(published("x", 1), published("y", 1));
        assert_ne!(published("x", 1), published("x", 2));
    }
}
