//! The effects of a change of the configuration. The configurations are compared as a whole. Everything that costs more
//! than a comparison, such as targets, checks, routes and entries of the report, is recomputed only for touched
//! objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::Arc,
};

use proxy_api::{Configuration, EndpointSet, Listener, ListenerId, RESERVED, SocketKey, Target, Transport};

use crate::core::changes::diff::Running;

/// Endpoint sets by name.
pub type Sets = BTreeMap<String, EndpointSet>;

/// The parts of a running proxy that a change touches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Listeners that are new, have changed or are gone.
    pub changed: BTreeSet<ListenerId>,
    /// Serving listeners that may have different targets.
    pub targets: BTreeSet<ListenerId>,
    /// Open sockets that are new, that serve different listeners, or whose listener has changed.
    pub sockets: BTreeSet<SocketKey>,
    /// Whether the surroundings of the proxy have changed.
    pub surroundings: bool,
}

impl Touched {
    /// Compares the running state and its endpoint sets with the next ones.
    #[must_use]
    pub fn between((before, sets_before): (&Running, &Sets), (next, sets): (&Running, &Sets)) -> Self {
        let changed = changed(before, next);
        let is_as_before = |key: &SocketKey, ids: &BTreeSet<ListenerId>| {
            before.sockets.get(key) == Some(ids) && ids.is_disjoint(&changed)
        };
        let sockets = next.sockets.iter().filter(|(key, ids)| !is_as_before(key, ids)).map(|(key, _)| *key).collect();
        let sets_changed = differing(sets_before, sets);
        let surroundings = RESERVED.iter().any(|name| sets_changed.contains(name));
        let targets = if surroundings {
            next.listeners.keys().cloned().collect()
        } else {
            let opened_or_closed = ports(before, next);
            let is_touched = |(id, listener): &(&ListenerId, &Arc<Listener>)| {
                changed.contains(*id) || uses(listener, &sets_changed) || reaches(listener, sets, &opened_or_closed)
            };
            next.listeners.iter().filter(is_touched).map(|(id, _)| id.clone()).collect()
        };
        Self { changed, targets, sockets, surroundings }
    }

    /// Whether the change touches nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The listeners that two configurations offer differently: their state is reported again.
#[must_use]
pub fn offers(before: &Configuration, next: &Configuration) -> BTreeSet<ListenerId> {
    let gone = before.listeners.keys().filter(|id| !next.listeners.contains_key(*id));
    let new = next.listeners.iter().filter(|(id, offer)| {
        let known = before.listeners.get(*id);
        known.is_none_or(|before| before.revision() != offer.revision())
    });
    gone.chain(new.map(|(id, _)| id)).cloned().collect()
}

/// Listeners that only one of the two has, or that differ. An incremental update mostly shares the listener objects.
fn changed(before: &Running, next: &Running) -> BTreeSet<ListenerId> {
    let is_same = |one: &Arc<Listener>, other: &Arc<Listener>| Arc::ptr_eq(one, other) || one == other;
    let gone = before.listeners.keys().filter(|id| !next.listeners.contains_key(*id));
    let differ = |(id, listener): &(&ListenerId, &Arc<Listener>)| {
        before.listeners.get(*id).is_none_or(|before| !is_same(before, listener))
    };
    gone.chain(next.listeners.iter().filter(differ).map(|(id, _)| id)).cloned().collect()
}

/// Names of the sets that differ.
pub(in crate::core) fn differing<'a>(before: &'a Sets, next: &'a Sets) -> BTreeSet<&'a str> {
    let gone = before.keys().filter(|name| !next.contains_key(*name));
    let differ = next.iter().filter(|(name, set)| before.get(*name) != Some(*set)).map(|(name, _)| name);
    gone.chain(differ).map(String::as_str).collect()
}

/// Ports that were opened or closed: an endpoint on one of them may have become a loop, or stopped being one.
fn ports(before: &Running, next: &Running) -> BTreeSet<(Transport, u16)> {
    let opened = next.sockets.keys().filter(|key| !before.sockets.contains_key(key));
    let closed = before.sockets.keys().filter(|key| !next.sockets.contains_key(key));
    opened.chain(closed).map(|key| (key.transport, key.port)).collect()
}

fn uses(listener: &Listener, sets: &BTreeSet<&str>) -> bool {
    let is_used = |target: &Target| matches!(target, Target::Endpoints(name) if sets.contains(name.as_str()));
    !sets.is_empty() && listener.backends.iter().any(|backend| is_used(&backend.target))
}

/// Whether the listener connects to one of these ports, at any address.
fn reaches(listener: &Listener, sets: &Sets, ports: &BTreeSet<(Transport, u16)>) -> bool {
    if ports.is_empty() {
        return false;
    }
    let (transport, further) = (listener.transport_out(), listener.further_ports());
    let has = |range: RangeInclusive<u16>| {
        ports.range((transport, *range.start())..=(transport, *range.end())).next().is_some()
    };
    let from = |port: u16| port..=port.saturating_add(further);
    listener.backends.iter().any(|backend| match &backend.target {
        Target::Address { port, .. } => has(from(*port)),
        Target::Endpoints(name) => {
            let mut endpoints = sets.get(name).into_iter().flat_map(|set| &set.endpoints);
            endpoints.any(|endpoint| has(from(endpoint.address.port())))
        }
        // The ports belong to another machine.
        Target::Tunnel { .. } => false,
    })
}
