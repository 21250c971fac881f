//! Changes of listeners in place: their sockets, and who shares them, stay as they are. Such a change concerns nobody
//! else, so that only the listeners that change are planned, however many others run.

use std::sync::Arc;

use proxy_api::{Bind, Configuration, Listener, Offer, SocketKey};

use super::diff::{Desired, Running};

/// The part of a proxy that changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// The listeners that change, as they run, and their sockets.
    pub running: Running,
    /// The same listeners, as they should run.
    pub desired: Desired,
}

/// What changes from one configuration to the next, which has the same listeners and endpoints. None if any of them is new,
/// gone or not supported, or changes in more than in place: then everything is compared. Every supported listener must run
/// as `before` has it.
#[must_use]
pub fn part(running: &Running, before: &Configuration, next: &Configuration) -> Option<Part> {
    if before.listeners.len() != next.listeners.len() || before.endpoints != next.endpoints {
        return None;
    }
    let mut part = Part::default();
    // Both are in order.
    for ((id, old), (other, new)) in before.listeners.iter().zip(&next.listeners) {
        let (Offer::Supported(old), Offer::Supported(new)) = (old, new) else { return None };
        if id != other {
            return None;
        }
        if Arc::ptr_eq(old, new) || old == new {
            continue;
        }
        let runs = running.listeners.get(id).filter(|runs| *runs == old && keeps_sockets(old, new))?;
        for socket in new.sockets() {
            part.running.sockets.insert(socket, running.sockets.get(&socket)?.clone());
            // It is open if the listener was on loopback only, and is served like the other one.
            let loopback = SocketKey { bind: Bind::Loopback, ..socket };
            let open = running.sockets.get(&loopback).map(|ids| (loopback, ids.clone()));
            part.running.sockets.extend(open);
        }
        part.running.listeners.insert(id.clone(), runs.clone());
        part.desired.insert(id.clone(), Some(new.clone()));
    }
    Some(part)
}

/// Whether a listener has the same sockets as before, and shares them with the same others. Durable listeners are planned
/// with all, because their logs are.
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
    use std::{collections::BTreeSet, net::SocketAddr};

    use proxy_api::{Backend, ListenerId, OnUpdate, Origin, Sessions, Target, Transport};

    use super::*;
    use crate::core::{diff, touched::Touched};

    fn id(at: u16) -> ListenerId {
        ListenerId::new(Origin::port_forward("ns", format!("f{at}")), "l")
    }

    /// A listener on a port, or with hostnames on that port.
    fn listener(port: u16, hostnames: &[&str], backend: &str) -> Offer {
        let text = include_str!("../../../proxy-api/tests/documents/v1.yaml");
        let document = Configuration::decode(text.as_bytes()).expect("v1");
        let template = document.supported().next().expect("one").1.clone();
        let target = Target::Address { host: "192.0.2.1".to_owned(), port: 9000 };
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
        Configuration { listeners: listeners.into(), ..Configuration::default() }
    }

    fn run(running: &Running, next: &Configuration) -> diff::Settled {
        diff::diff(running, &diff::desired(next)).settle(&BTreeSet::new())
    }

    /// Whether a change is one in place. If so, its part has the outcome of the whole.
    fn is_in_place(running: &Running, next: &Configuration) -> bool {
        let before = configuration();
        let Some(part) = part(running, &before, next) else { return false };
        let whole = run(running, next);
        let settled = diff::diff(&part.running, &part.desired).settle(&BTreeSet::new());
        assert_eq!((&settled.applied, &settled.concerned), (&whole.applied, &whole.concerned));
        assert_eq!((&settled.close, &settled.blocked), (&whole.close, &whole.blocked));
        let touched =
            |ran: &Running, runs: &Running| Touched::between((ran, &before.endpoints), (runs, &next.endpoints));
        assert_eq!(touched(&part.running, &settled.next), touched(running, &whole.next));
        let mut merged = running.clone();
        merged.listeners.extend(settled.next.listeners);
        assert_eq!(merged, whole.next);
        true
    }

    #[test]
    fn only_the_listeners_that_change_are_planned() {
        let running = run(&Running::default(), &configuration()).next;
        let mut next = configuration();
        assert_eq!(part(&running, &configuration(), &next), Some(Part::default()), "nothing changes");
        next.listeners.insert(id(2), listener(2, &[], "other"));
        let planned = part(&running, &configuration(), &next).expect("in place");
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
        let mut endpoints = configuration();
        endpoints.endpoints.insert("ns/s".to_owned(), [SocketAddr::from(([192, 0, 2, 1], 1))].into_iter().collect());
        assert!(!is_in_place(&running, &endpoints));
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
