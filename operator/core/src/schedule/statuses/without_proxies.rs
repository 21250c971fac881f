//! Events of forwards whose gateway has no ready proxy.

use std::time::Duration;

use crds::{PortForward, PortForwardStatus};
use k8s_openapi::api::core::v1::ObjectReference;
use proxy_api::OriginKind;

use super::Statuses;
use crate::{
    schedule::Effect,
    status::events::{has_lacked_proxies, lacks_proxies, of_no_proxies, reference},
    world::ObjectKey,
};

/// Time in which the first proxy of a fleet should become ready: its pod is scheduled, and its image pulled. Before that,
/// a forward without proxies is not worth an event.
const START: Duration = Duration::from_secs(120);

impl Statuses {
    /// Warns of a forward that has been without proxies for longer than a fleet takes to start.
    pub(super) fn wait_for_proxies(
        &mut self,
        key: &ObjectKey,
        forward: &PortForward,
        next: &PortForwardStatus,
        (now, wall_clock): (Duration, &str),
        effects: &mut Vec<Effect>,
    ) {
        let entry = self.entries.entry(key.clone()).or_default();
        if !lacks_proxies(&next.conditions) {
            entry.without_proxies = None;
            return;
        }
        let object = reference_of(forward);
        let has_lacked = |old: &PortForwardStatus| has_lacked_proxies(&old.conditions, START, wall_clock);
        let is_known = forward.status.as_ref().is_some_and(has_lacked);
        if is_known && entry.without_proxies.is_none() && entry.reported.is_none() {
            // The forward had been without proxies for long enough before this term: an earlier leader has reported
            // that.
            let _ = of_no_proxies(&object, &next.conditions, &mut entry.reported);
        }
        let due = *entry.without_proxies.get_or_insert(now) + START;
        if now < due {
            self.later.insert((due, key.clone()));
        } else {
            effects.extend(of_no_proxies(&object, &next.conditions, &mut entry.reported).map(Effect::Event));
        }
    }
}

/// The object of a forward, as events name it.
pub(super) fn reference_of(forward: &PortForward) -> ObjectReference {
    reference(OriginKind::PortForward.as_str(), &forward.metadata)
}
