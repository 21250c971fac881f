//! The ports that status lists for the listeners of a forward.

use crds::{AcceptedHeaders, Listener, ListenerStatus, PortForward, PortForwardStatus};

use super::{Placement, placement::SIDECAR, transport};

/// A port that status lists for a listener.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) port: u16,
    pub(super) further: u16,
    pub(super) names: Vec<String>,
    pub(super) header: Option<AcceptedHeaders>,
}

/// Precedence of a listener's claim; smaller variants win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Status lists the port as the listener requests it.
    Serves,
    /// Status lists the port, but with other PROXY headers. Listeners that share the port by server name take
    /// precedence, so that such an edit does not cost them the port.
    ReadsOtherHeaders,
    /// Status does not list the port, or lists less than the listener requests.
    New,
}

impl Held {
    /// The port that status lists for this listener.
    pub(super) fn of(item: &Listener, held: &[ListenerStatus]) -> Option<Self> {
        let is_same =
            |held: &&ListenerStatus| held.name == item.name && transport(held.protocol) == transport(item.protocol);
        held.iter().find(is_same).map(|held| Self {
            port: held.port,
            further: held.end_port.map_or(0, |end| end.saturating_sub(held.port)),
            names: held.hostnames.clone(),
            header: held.proxy_protocol.clone(),
        })
    }
}

/// The listeners in a status, if it was written for this placement; otherwise none.
pub(crate) fn held_in<'a>(status: &'a PortForwardStatus, words: &str) -> &'a [ListenerStatus] {
    // Older releases wrote no selector.
    let is_older = |written: &str| written == SIDECAR && words.starts_with(SIDECAR);
    let is_here = status.placement.as_deref().is_none_or(|written| written == words || is_older(written));
    if is_here { &status.listeners } else { &[] }
}

/// The listeners that status lists for the forward's placement. A forward that moves to another gateway, or to other
/// pods, holds no ports there yet.
pub(super) fn held<'a>(forward: &'a PortForward, placement: &Placement) -> &'a [ListenerStatus] {
    forward.status.as_ref().map_or(&[][..], |status| held_in(status, &placement.words()))
}
