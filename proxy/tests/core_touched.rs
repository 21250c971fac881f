//! What a change touches, in counts: of ten thousand listeners, those that it concerns.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

mod document;

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use document::template;
use proxy::core::changes::{
    diff::{self, Running},
    touched::{Touched, offers},
};
use proxy_api::{
    Backend, Bind, Configuration, EndpointSet, FLEET, Listener, ListenerId, Offer, Origin, SocketKey, Target, Transport,
};

const COUNT: u16 = 10_000;

fn id(at: u16) -> ListenerId {
    ListenerId::new(Origin::port_forward("ns", format!("f{at:05}")), "l")
}

/// A listener on a port of its own, with one endpoint set as its backend.
fn listener(template: &Listener, at: u16, set: u16) -> Listener {
    let socket = SocketKey { transport: Transport::Tcp, bind: Bind::Loopback, port: 10_000 + at };
    let target = Target::Endpoints(format!("ns/s{set}"));
    let backend = Backend { id: format!("s{set}"), weight: 1, priority: 0, check_port: None, target };
    Listener { socket, end_port: None, hostnames: Vec::new(), backends: vec![backend], ..template.clone() }.sealed()
}

fn set(port: u16) -> EndpointSet {
    [SocketAddr::from(([192, 0, 2, 1], port))].into_iter().collect()
}

/// Listeners with a socket and an endpoint set each; the endpoints of the set with number N are on the port 30,000 + N.
fn many() -> Configuration {
    let template = template();
    Configuration {
        listeners: (0..COUNT).map(|at| (id(at), Offer::from(listener(&template, at, at)))).collect(),
        endpoints: (0..COUNT).map(|at| (format!("ns/s{at}"), set(30_000 + at))).collect(),
        ..Configuration::default()
    }
}

fn run(before: &Running, configuration: &Configuration) -> Running {
    diff::diff(before, &diff::desired(configuration)).settle(&BTreeSet::new()).next
}

/// What the step from `many` to the configuration that `change` makes of it touches.
fn touched(change: impl FnOnce(&mut Configuration)) -> Touched {
    let before = many();
    let ran = run(&Running::default(), &before);
    let mut next = before.clone();
    change(&mut next);
    let runs = run(&ran, &next);
    Touched::between((&ran, &before.endpoints), (&runs, &next.endpoints))
}

fn ids(all: &[u16]) -> BTreeSet<ListenerId> {
    all.iter().map(|at| id(*at)).collect()
}

fn sockets(ports: &[u16]) -> BTreeSet<SocketKey> {
    ports.iter().map(|port| SocketKey { transport: Transport::Tcp, bind: Bind::Loopback, port: *port }).collect()
}

#[test]
fn a_listener_that_changes_touches_itself_and_its_socket() {
    let touched = touched(|next| {
        let changed = listener(&template(), 7, 8);
        next.listeners.insert(id(7), changed.into());
    });
    let expected = Touched { changed: ids(&[7]), targets: ids(&[7]), sockets: sockets(&[10_007]), surroundings: false };
    assert_eq!(touched, expected);
}

#[test]
fn endpoints_that_change_touch_the_targets_of_their_listeners_and_no_socket() {
    let touched = touched(|next| drop(next.endpoints.insert("ns/s7".to_owned(), set(1))));
    assert_eq!(touched, Touched { targets: ids(&[7]), ..Touched::default() });
}

#[test]
fn a_port_that_opens_or_closes_touches_the_listeners_whose_endpoints_have_it() {
    // A loop begins where a port opens, and ends where it closes.
    let opened = touched(|next| {
        let mut other = listener(&template(), 7, 7);
        other.socket.port = 30_009;
        next.listeners.insert(id(7), other.sealed().into());
    });
    assert_eq!((opened.changed, opened.targets), (ids(&[7]), ids(&[7, 9])));
    assert_eq!(opened.sockets, sockets(&[30_009]));
    let closed = touched(|next| drop(next.listeners.remove(&id(7))));
    assert_eq!(closed, Touched { changed: ids(&[7]), ..Touched::default() });
}

#[test]
fn the_same_configuration_again_touches_nothing_also_as_other_objects() {
    assert!(touched(|_| ()).is_empty());
    let rebuilt = touched(|next| {
        for offer in next.listeners.values_mut() {
            if let Offer::Supported(listener) = offer {
                *listener = Arc::new((**listener).clone());
            }
        }
    });
    assert!(rebuilt.is_empty());
}

#[test]
fn a_pod_of_the_fleet_concerns_the_targets_of_all_and_no_listener_or_socket() {
    let touched = touched(|next| drop(next.endpoints.insert(FLEET.to_owned(), set(0))));
    assert!(touched.surroundings && touched.changed.is_empty() && touched.sockets.is_empty());
    assert_eq!(touched.targets.len(), usize::from(COUNT));
}

#[test]
fn only_offers_that_differ_are_reported_anew() {
    let before = many();
    let mut next = before.clone();
    next.listeners.insert(id(7), listener(&template(), 7, 8).into());
    next.listeners.remove(&id(9));
    assert_eq!(offers(&before, &next), ids(&[7, 9]));
}
