//! A listener whose new version is refused goes on in its last good version.

use std::collections::{BTreeMap, BTreeSet};

use proxy_api::{Configuration, ListenerId, Offer, SocketKey, Target};

use crate::{ObjectKey, Outcome, Reason, Verdict};

/// Puts back what ran before, where the new version of a listener is refused as a mistake and nothing else has taken its
/// socket. A refusal that takes a permission away is final: it is not among the mistakes.
pub fn keep_last_good(
    previous: &Configuration,
    next: &mut Configuration,
    verdicts: &BTreeMap<ObjectKey, Verdict>,
) -> BTreeSet<ListenerId> {
    // A port is claimed whatever the addresses, so that two listeners never share one.
    let port = |socket: SocketKey| (socket.transport, socket.port);
    let mut taken: BTreeSet<_> = next.supported().map(|(_, listener)| port(listener.socket)).collect();
    let mut kept = BTreeSet::new();
    for (id, offer) in &previous.listeners {
        let Offer::Supported(listener) = offer else { continue };
        if next.listeners.contains_key(id) || !is_mistaken(id, verdicts) || !taken.insert(port(listener.socket)) {
            continue;
        }
        next.listeners.insert(id.clone(), offer.clone());
        for backend in &listener.backends {
            if let Target::Endpoints(name) = &backend.target
                && let Some(set) = previous.endpoints.get(name)
            {
                next.endpoints.entry(name.clone()).or_insert_with(|| set.clone());
            }
        }
        kept.insert(id.clone());
    }
    kept
}

/// Whether the forward is still there and its new version of this listener is a mistake.
fn is_mistaken(id: &ListenerId, verdicts: &BTreeMap<ObjectKey, Verdict>) -> bool {
    let key = ObjectKey::new(id.namespace.clone(), id.forward.clone());
    let Some(verdict) = verdicts.get(&key) else { return false };
    let listener = verdict.listeners.iter().find(|listener| listener.name == id.listener);
    let reason = match listener.map(|listener| &listener.outcome) {
        Some(Outcome::Refused { reason, .. }) => *reason,
        None if verdict.listeners.is_empty() => verdict.accepted.reason,
        Some(_) | None => return false,
    };
    matches!(reason, Reason::Invalid | Reason::PortConflict | Reason::BackendLoop | Reason::BackendNotFound)
}
