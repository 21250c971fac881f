//! Selects the proxies to ask for the sessions of forwards.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    status::{data_plane::Fleet, proxies::Proxies},
    translate::{groups::Group, verdict::Verdict},
    world::proxy_id::ProxyId,
};

/// Returns the proxies that should run a forward. Pods without a proxy are left out: they have no sessions. Terminating
/// pods belong to no fleet; their streams tell which of them still carry the forward.
#[must_use]
pub fn carriers(verdict: &Verdict, fleets: &BTreeMap<Group, Fleet>, proxies: &Proxies) -> BTreeSet<ProxyId> {
    verdict.groups.iter().flat_map(|group| carriers_in(group, fleets, proxies)).cloned().collect()
}

/// Returns the proxies that should run the forwards of a group.
pub fn carriers_in<'a>(
    group: &Group,
    fleets: &'a BTreeMap<Group, Fleet>,
    proxies: &'a Proxies,
) -> impl Iterator<Item = &'a ProxyId> + use<'a> {
    let carry = move |fleet: &'a Fleet| {
        let was_injected = move |proxy: &ProxyId| fleet.issues.get(proxy).is_none_or(|issue| issue.injected);
        fleet.members.iter().filter(move |proxy| was_injected(proxy) || proxies.get(proxy).is_some())
    };
    fleets.get(group).into_iter().flat_map(carry)
}
