//! The proxies that are asked for the sessions of a forward.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    status::{data_plane::Fleet, proxies::Proxies},
    translate::{groups::Group, verdict::Verdict},
    world::proxy_id::ProxyId,
};

/// The proxies that should run a forward. Pods without a proxy are left out: they have no sessions. Terminating pods
/// belong to no fleet; their streams tell which of them still carry the forward.
#[must_use]
pub fn carriers(verdict: &Verdict, fleets: &BTreeMap<Group, Fleet>, proxies: &Proxies) -> BTreeSet<ProxyId> {
    let mut carriers = BTreeSet::new();
    for fleet in verdict.groups.iter().filter_map(|group| fleets.get(group)) {
        let was_injected = |proxy: &ProxyId| fleet.issues.get(proxy).is_none_or(|issue| issue.injected);
        let carry = fleet.members.iter().filter(|proxy| was_injected(proxy) || proxies.get(proxy).is_some());
        carriers.extend(carry.cloned());
    }
    carriers
}
