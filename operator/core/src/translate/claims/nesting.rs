//! Server names that lie within one another, on the ports of a gateway.

use std::collections::BTreeMap;

use super::{ListenerRef, Lost, Port, namespaces::Namespaces};
use crate::translate::{
    server_names::{base, reversed},
    verdict::Reason,
};

/// Port, labels in reverse order, and whether the name is a wildcard. Names below a wildcard follow it in this order.
type Key = (Port, String, bool);

/// The server names that listeners hold so far, while the claims of a gateway are decided. Two names are nested if one
/// is a wildcard and the other lies below it.
#[derive(Debug, Default)]
pub(super) struct Nesting(BTreeMap<Key, Held>);

#[derive(Debug)]
struct Held {
    name: String,
    listener: ListenerRef,
    /// Name of the listener in its forward.
    listener_name: String,
}

/// A listener that requests server names on a port.
#[derive(Clone, Copy)]
pub(super) struct Asks<'a> {
    pub(super) listener: &'a ListenerRef,
    /// Name of the listener in its forward.
    pub(super) name: &'a str,
    pub(super) names: &'a [String],
}

impl Nesting {
    /// Records that the listener got these names on a port.
    pub(super) fn take(&mut self, port: Port, asks: Asks<'_>) {
        for name in asks.names {
            let held =
                Held { name: name.clone(), listener: asks.listener.clone(), listener_name: asks.name.to_owned() };
            self.0.insert((port, reversed(name), base(name).is_some()), held);
        }
    }

    /// Why the listener cannot have its names on a port beside those of other namespaces. Of two nested names, the
    /// inner one must be granted to its namespace: otherwise the inner name would take clients from the outer one, or
    /// the outer name would get the clients of the inner one when that is removed.
    pub(super) fn refuses(&self, port: Port, asks: Asks<'_>, namespaces: &Namespaces) -> Option<Lost> {
        let own = asks.listener.forward.namespace.as_str();
        asks.names.iter().find_map(|name| {
            let labels = reversed(name);
            let outer = || self.around(port, &labels).find(|held| held.listener.forward.namespace != own);
            if !namespaces.grants(own, name)
                && let Some(held) = outer()
            {
                return Some(lost(port, asks.name, name, "lies within", held));
            }
            let is_taken = |held: &&Held| {
                let other = held.listener.forward.namespace.as_str();
                other != own && !namespaces.grants(other, &held.name)
            };
            let inner = base(name).and_then(|_| self.below(port, &labels).find(is_taken))?;
            Some(lost(port, asks.name, name, "covers", inner))
        })
    }

    /// The wildcards around a name with these labels.
    fn around(&self, port: Port, labels: &str) -> impl Iterator<Item = &Held> {
        let bases = labels.match_indices('.').map(|(at, _)| labels[..at].to_owned());
        bases.filter_map(move |base| self.0.get(&(port, base, true)))
    }

    /// The names below a wildcard whose base has these labels.
    fn below(&self, port: Port, labels: &str) -> impl Iterator<Item = &Held> {
        let first = format!("{labels}.");
        let items = self.0.range((port, first.clone(), false)..);
        let is_below = move |(key, _): &(&Key, &Held)| key.0 == port && key.1.starts_with(&first);
        items.take_while(is_below).map(|(_, held)| held)
    }
}

fn lost((_, port): Port, listener: &str, name: &str, relation: &str, held: &Held) -> Lost {
    let message = format!(
        "hostname {name} on port {port} of listener '{listener}' {relation} {}, which {} (listener '{}') of another \
         namespace holds; choose another hostname, or let spec.allowedForwards.tenants of the gateway list the inner name \
         for its namespace",
        held.name, held.listener.forward, held.listener_name
    );
    Lost { reason: Reason::HostnameConflict, message, to_app: false }
}
