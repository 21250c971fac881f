//! What a listener has by its status.

use crds::{AcceptedHeaders, Listener, ListenerStatus, PortForward};

use super::{Placement, SIDECAR, ValidListener, transport};

/// A port as it stands in status.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) port: u16,
    further: u16,
    names: Vec<String>,
    header: Option<AcceptedHeaders>,
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

    /// Whether all that a listener wants stands there; an old object that wants more is a newcomer for all of it.
    pub(crate) fn covers(&self, listener: &ValidListener) -> bool {
        listener.further <= self.further
            // Without names it has the whole port.
            && (self.names.is_empty()
                || !listener.names.is_empty()
                    && listener.names.iter().all(|name| self.names.contains(name))
                    // Others share the port who read them as they stand there.
                    && self.header == listener.headers_before_names())
    }
}

/// The listeners that status says are held in this place. Those of another place are another place's affair: a forward
/// that moves to another gateway, or to other pods, is a newcomer there.
pub(super) fn held<'a>(forward: &'a PortForward, placement: &Placement) -> &'a [ListenerStatus] {
    let Some(status) = &forward.status else { return &[] };
    // An older release wrote no selector.
    let is_older = |there: &str| there == SIDECAR && matches!(placement, Placement::Sidecar(_));
    let there = status.placement.as_deref().is_none_or(|there| there == placement.words() || is_older(there));
    if there { &status.listeners } else { &[] }
}
