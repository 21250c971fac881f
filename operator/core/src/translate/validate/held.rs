//! What a listener has by its status.

use crds::{AcceptedHeaders, Listener, ListenerStatus, PortForward, PortForwardStatus};

use super::{Placement, SIDECAR, ValidListener, transport};

/// A port as it stands in status.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) port: u16,
    further: u16,
    names: Vec<String>,
    header: Option<AcceptedHeaders>,
}

/// By what a listener comes to its port; the first come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// It has served as it is.
    Serves,
    /// It has served, and reads other PROXY headers now than those with whom it may share the port: they do not lose it.
    ReadsOtherHeaders,
    New,
}

impl Held {
    /// What status says that this listener has.
    pub(super) fn of(item: &Listener, held: &[ListenerStatus]) -> Option<Self> {
        let is_its =
            |held: &&ListenerStatus| held.name == item.name && transport(held.protocol) == transport(item.protocol);
        held.iter().find(is_its).map(|held| Self {
            port: held.port,
            further: held.end_port.map_or(0, |end| end.saturating_sub(held.port)),
            names: held.hostnames.clone(),
            header: held.proxy_protocol.clone(),
        })
    }

    /// By what a listener comes to its port; an old object that wants more than stands there is a newcomer for all of it.
    pub(crate) fn standing(&self, listener: &ValidListener) -> Standing {
        // Without names it has the whole port.
        let has_whole_port = self.names.is_empty();
        let has_names = !listener.names.is_empty() && listener.names.iter().all(|name| self.names.contains(name));
        if listener.further > self.further || !has_whole_port && !has_names {
            Standing::New
        } else if has_whole_port || self.header == listener.headers_before_names() {
            Standing::Serves
        } else {
            Standing::ReadsOtherHeaders
        }
    }
}

/// The listeners of a forward that are held in the place of these words, by status.
pub(crate) fn held_in<'a>(status: &'a PortForwardStatus, words: &str) -> &'a [ListenerStatus] {
    // An older release wrote no selector.
    let is_older = |there: &str| there == SIDECAR && words.starts_with(SIDECAR);
    let there = status.placement.as_deref().is_none_or(|there| there == words || is_older(there));
    if there { &status.listeners } else { &[] }
}

/// The listeners that status says are held in this place. Those of another place are another place's affair: a forward
/// that moves to another gateway, or to other pods, is a newcomer there.
pub(super) fn held<'a>(forward: &'a PortForward, placement: &Placement) -> &'a [ListenerStatus] {
    forward.status.as_ref().map_or(&[][..], |status| held_in(status, &placement.words()))
}
