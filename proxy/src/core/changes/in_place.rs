//! Changes in place: the sockets of the changed listeners, and the listeners that share them, stay the same, and
//! endpoints change for their users. Such a change concerns no other listener, so that only the changed ones are
//! planned, however many others run.

use std::{collections::BTreeSet, sync::Arc};

use proxy_api::{Bind, Configuration, Listener, ListenerId, Named, Offer, RESERVED, SocketKey};

use crate::core::changes::{
    diff::{Desired, Running, Settled},
    set_users::SetUsers,
    touched::{self, Sets, Touched},
};

/// The step from an earlier configuration to the present one.
#[derive(Debug)]
pub struct Step {
    /// The earlier configuration.
    pub from: Arc<Configuration>,
    /// The parts that may have changed, agents, peers and sidecars included. Nothing else has.
    pub named: Named,
}

/// The part of a proxy that changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// The changed listeners, as they run, and their sockets.
    pub running: Running,
    /// The same listeners, as they should run.
    pub desired: Desired,
    /// Names of the endpoint sets that change.
    pub sets: BTreeSet<String>,
}

impl Part {
    /// What the settled part touches, among all listeners that then run. No socket opens or closes, so no endpoint
    /// becomes a loop, or ceases to be one: besides the changed listeners, only users of the sets are touched.
    #[must_use]
    pub fn touched(&self, settled: &Settled, users: &SetUsers, runs: &Running) -> Touched {
        let none = Sets::new();
        let mut touched = Touched::between((&self.running, &none), (&settled.next, &none));
        touched.targets.extend(users.of(&self.sets, &runs.listeners));
        touched
    }

    /// Whether the part changes one of these listeners.
    #[must_use]
    pub fn concerns(&self, is_one: impl Fn(&ListenerId) -> bool) -> bool {
        self.desired.keys().any(is_one)
    }

    /// Adds a listener if it has changed. `None` if it is new or gone, begins or ceases to be supported, does not run
    /// as it was configured, or changes in more than in place.
    fn add(&mut self, running: &Running, id: &ListenerId, old: &Offer, new: &Offer) -> Option<()> {
        let (Offer::Supported(old), Offer::Supported(new)) = (old, new) else { return (old == new).then_some(()) };
        if Arc::ptr_eq(old, new) || old == new {
            return Some(());
        }
        let runs = running.listeners.get(id).filter(|runs| *runs == old && keeps_sockets(old, new))?;
        for socket in new.sockets() {
            self.running.sockets.insert(socket, running.sockets.get(&socket)?.clone());
            // Open if the listener was on loopback only; served like the other socket.
            let loopback = SocketKey { bind: Bind::Loopback, ..socket };
            let open = running.sockets.get(&loopback).map(|ids| (loopback, ids.clone()));
            self.running.sockets.extend(open);
        }
        self.running.listeners.insert(id.clone(), runs.clone());
        self.desired.insert(id.clone(), Some(new.clone()));
        Some(())
    }
}

/// The part that changes from one configuration to the next, which has the same listeners. `None` if a listener is new
/// or gone, or changes in more than in place, or if the surroundings of the proxy change: then everything is compared.
/// Listeners that could not be changed to `before` may run in an earlier version, or not at all, as long as they do not
/// change: the obstacle to their sockets stays. Objects not in `named` have not changed and are skipped; without it,
/// everything is compared.
#[must_use]
pub fn part(running: &Running, before: &Configuration, next: &Configuration, named: Option<&Named>) -> Option<Part> {
    if before.listeners.len() != next.listeners.len() {
        return None;
    }
    let mut part = Part { sets: sets(&before.endpoints, &next.endpoints, named)?, ..Part::default() };
    if let Some(named) = named {
        for id in &named.listeners {
            match (before.listeners.get(id), next.listeners.get(id)) {
                (None, None) => {}
                (old, new) => part.add(running, id, old?, new?)?,
            }
        }
        return Some(part);
    }
    // Both maps are ordered.
    for ((id, old), (other, new)) in before.listeners.iter().zip(&next.listeners) {
        if id != other {
            return None;
        }
        part.add(running, id, old, new)?;
    }
    Some(part)
}

/// Names of the endpoint sets that differ. `None` if one belongs to the surroundings, which concern all targets.
fn sets(before: &Sets, next: &Sets, named: Option<&Named>) -> Option<BTreeSet<String>> {
    let differ: BTreeSet<&str> = match named {
        Some(named) => {
            let differs = |name: &&str| before.get(*name) != next.get(*name);
            named.endpoints.iter().map(String::as_str).filter(differs).collect()
        }
        None if before == next => BTreeSet::new(),
        None => touched::differing(before, next),
    };
    let is_around = RESERVED.iter().any(|name| differ.contains(name));
    (!is_around).then(|| differ.into_iter().map(str::to_owned).collect())
}

/// Whether a listener has the same sockets as before, and shares them with the same others. False for a durable
/// listener, which is planned together with all listeners, because the logs are.
fn keeps_sockets(before: &Listener, after: &Listener) -> bool {
    before.socket == after.socket
        && before.end_port == after.end_port
        && before.hostnames == after.hostnames
        && before.proxy_protocol == after.proxy_protocol
        && before.durable.is_none()
        && after.durable.is_none()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proxy_api::{AcceptHeader, Backend, EndpointSet, OnUpdate, Origin, ProxyProtocol, Sessions, Target, Transport};

    use super::*;
    use crate::{
        core::changes::diff,
        fixtures::{on_disk, template},
    };

    fn id(at: u16) -> ListenerId {
        ListenerId::new(Origin::port_forward("ns", format!("f{at}")), "l")
    }

    /// A listener on a port, or with hostnames on that port.
    fn listener(port: u16, hostnames: &[&str], backend: &str) -> Offer {
        let template = template();
        let target = Target::Endpoints(format!("ns/{backend}"));
        let backend = Backend { id: backend.to_owned(), weight: 1, priority: 0, check_port: None, target };
        Offer::from(
            Listener {
                socket: SocketKey { transport: Transport::Tcp, bind: Bind::All, port },
                end_port: None,
                hostnames: hostnames.iter().map(|&name| name.to_owned()).collect(),
                backends: vec![backend],
                sessions: Sessions { on_update: OnUpdate::Close, ..template.sessions },
                ..template
            }
            .sealed(),
        )
    }

    /// Two listeners on ports of their own, and two that share a port.
    fn configuration() -> Configuration {
        let listeners = [
            (id(1), listener(1, &[], "b")),
            (id(2), listener(2, &[], "b")),
            (id(3), listener(3, &["a.example.com"], "b")),
            (id(4), listener(3, &["b.example.com"], "b")),
        ];
        let endpoints = ["ns/b", "ns/other"].map(|name| (name.to_owned(), set(1)));
        Configuration { listeners: listeners.into(), endpoints: endpoints.into(), ..Configuration::default() }
    }

    /// An endpoint on this port.
    fn set(port: u16) -> EndpointSet {
        [SocketAddr::from(([192, 0, 2, 1], port))].into_iter().collect()
    }

    fn users(running: &Running) -> SetUsers {
        let mut users = SetUsers::default();
        running.listeners.iter().for_each(|(id, listener)| users.replace(id, None, Some(listener)));
        users
    }

    fn run(running: &Running, next: &Configuration) -> diff::Settled {
        diff::diff(running, &diff::desired(next)).settle(&BTreeSet::new())
    }

    /// Whether a change is in place. If so, its part has the same outcome as the whole.
    fn is_in_place(running: &Running, next: &Configuration) -> bool {
        let before = configuration();
        let Some(part) = part(running, &before, next, None) else { return false };
        let whole = run(running, next);
        let settled = diff::diff(&part.running, &part.desired).settle(&BTreeSet::new());
        assert_eq!((&settled.applied, &settled.concerned), (&whole.applied, &whole.concerned));
        assert_eq!((&settled.close, &settled.blocked), (&whole.close, &whole.blocked));
        let mut merged = running.clone();
        merged.listeners.extend(settled.next.listeners.clone());
        let expected = Touched::between((running, &before.endpoints), (&whole.next, &next.endpoints));
        assert_eq!(part.touched(&settled, &users(running), &merged), expected);
        assert_eq!(merged, whole.next);
        true
    }

    #[test]
    fn only_the_listeners_that_change_are_planned() {
        let running = run(&Running::default(), &configuration()).next;
        let mut next = configuration();
        assert_eq!(part(&running, &configuration(), &next, None), Some(Part::default()), "nothing changes");
        next.listeners.insert(id(2), listener(2, &[], "other"));
        let planned = part(&running, &configuration(), &next, None).expect("in place");
        assert_eq!(planned.desired.keys().collect::<Vec<_>>(), [&id(2)]);
        assert_eq!((planned.running.listeners.len(), planned.running.sockets.len()), (1, 1));
        assert!(is_in_place(&running, &next));
        next.listeners.insert(id(3), listener(3, &["a.example.com"], "other"));
        assert!(is_in_place(&running, &next), "another listener of the port stays");
        next.listeners.insert(id(4), listener(3, &["b.example.com"], "other"));
        assert!(is_in_place(&running, &next), "both listeners of a port change");
    }

    #[test]
    fn a_listener_that_left_loopback_has_both_of_its_sockets() {
        let mut running = run(&Running::default(), &configuration()).next;
        let loopback = SocketKey { transport: Transport::Tcp, bind: Bind::Loopback, port: 1 };
        running.sockets.insert(loopback, BTreeSet::from([id(1)]));
        let mut next = configuration();
        next.listeners.insert(id(1), listener(1, &[], "other"));
        assert!(is_in_place(&running, &next));
    }

    #[test]
    fn what_sockets_depend_on_is_planned_as_a_whole() {
        let running = run(&Running::default(), &configuration()).next;
        let with = |at: u16, offer: Offer| {
            let mut next = configuration();
            next.listeners.insert(id(at), offer);
            next
        };
        assert!(!is_in_place(&running, &with(1, listener(7, &[], "b"))), "another port");
        assert!(!is_in_place(&running, &with(3, listener(3, &["c.example.com"], "b"))), "another hostname");
        assert!(!is_in_place(&running, &with(5, listener(5, &[], "b"))), "a new listener");
        let unsupported = Offer::Unsupported {
            revision: proxy_api::Revision::default(),
            what: String::new(),
            raw: serde_json::Value::Null,
        };
        assert!(!is_in_place(&running, &with(1, unsupported)));
        let mut gone = configuration();
        gone.listeners.remove(&id(1));
        assert!(!is_in_place(&running, &gone));
        gone.listeners.insert(id(6), listener(1, &[], "b"));
        assert!(!is_in_place(&running, &gone), "as many as before, of another name");
        for around in RESERVED {
            let mut next = configuration();
            next.endpoints.insert(around.to_owned(), set(1));
            assert!(!is_in_place(&running, &next), "{around} concerns the targets of all");
        }
    }

    /// Returns the configuration with this change of a listener on port 1.
    fn with(changed: impl FnOnce(Listener) -> Listener) -> Configuration {
        let mut next = configuration();
        if let Some(Offer::Supported(plain)) = next.listeners.get(&id(1)).cloned() {
            next.listeners.insert(id(1), changed((*plain).clone()).sealed().into());
        }
        next
    }

    #[test]
    fn a_listener_that_takes_a_port_of_another_one_is_planned_with_all() {
        let running = run(&Running::default(), &configuration()).next;
        let other = SocketKey { transport: Transport::Tcp, bind: Bind::All, port: 2 };
        let moved = with(|plain| Listener { socket: other, ..plain });
        assert_eq!(part(&running, &configuration(), &moved, None), None);
        let longer = with(|plain| Listener { end_port: Some(2), ..plain });
        assert_eq!(part(&running, &configuration(), &longer, None), None);
    }

    #[test]
    fn a_listener_that_begins_or_ceases_to_read_headers_or_keep_messages_is_planned_with_all() {
        let header = ProxyProtocol { accept: AcceptHeader::Required, ..ProxyProtocol::default() };
        let keeps = with(|plain| Listener { durable: Some(Box::new(on_disk())), ..plain });
        let reads = with(|plain| Listener { proxy_protocol: Some(Box::new(header)), ..plain });
        for other in [keeps, reads] {
            for (before, next) in [(&configuration(), &other), (&other, &configuration())] {
                let running = run(&Running::default(), before).next;
                assert_eq!(part(&running, before, next, None), None);
            }
        }
    }

    #[test]
    fn endpoints_that_change_are_planned_for_those_who_use_them() {
        let running = run(&Running::default(), &configuration()).next;
        let mut next = configuration();
        next.endpoints.insert("ns/other".to_owned(), set(2));
        let planned = part(&running, &configuration(), &next, None).expect("in place");
        assert!(planned.running.listeners.is_empty() && planned.desired.is_empty());
        assert_eq!(planned.sets, BTreeSet::from(["ns/other".to_owned()]));
        assert!(is_in_place(&running, &next), "nobody uses them");
        next.endpoints.insert("ns/b".to_owned(), set(2));
        assert!(is_in_place(&running, &next), "all use them");
        next.listeners.insert(id(2), listener(2, &[], "other"));
        assert!(is_in_place(&running, &next), "a listener changes with them");
        next.endpoints.remove("ns/b");
        next.endpoints.insert("ns/new".to_owned(), set(3));
        assert!(is_in_place(&running, &next), "a set is gone, and another one is new");
    }

    #[test]
    fn what_an_update_does_not_name_is_not_looked_at() {
        let running = run(&Running::default(), &configuration()).next;
        let mut next = configuration();
        next.listeners.insert(id(1), listener(1, &[], "other"));
        next.endpoints.insert("ns/b".to_owned(), set(2));
        // No update changes these without naming them, so the difference shows that they are not compared.
        next.listeners.insert(id(2), listener(7, &[], "other"));
        next.endpoints.insert("ns/other".to_owned(), set(2));
        let sets = ["ns/b", "ns/none"].map(str::to_owned);
        let mut named = Named { listeners: [id(1), id(3), id(9)].into(), endpoints: sets.into(), ..Named::default() };
        let planned = part(&running, &configuration(), &next, Some(&named)).expect("in place");
        assert_eq!(planned.desired.keys().collect::<Vec<_>>(), [&id(1)]);
        assert_eq!(planned.sets, BTreeSet::from(["ns/b".to_owned()]));
        named.listeners.insert(id(2));
        assert_eq!(part(&running, &configuration(), &next, Some(&named)), None, "another port");
    }

    #[test]
    fn a_listener_that_does_not_run_as_configured_is_planned_with_all() {
        let mut running = run(&Running::default(), &configuration()).next;
        let mut next = configuration();
        next.listeners.insert(id(1), listener(1, &[], "other"));
        if let Offer::Supported(stale) = listener(1, &[], "stale") {
            running.listeners.insert(id(1), stale);
        }
        assert!(!is_in_place(&running, &next));
    }
}
