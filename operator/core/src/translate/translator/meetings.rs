//! The agents that each sidecar group uses. A sidecar group receives the agents that its listeners reach, and the
//! proxies of a gateway receive the sidecars to which they hand connections of these agents over.

use std::collections::{BTreeMap, BTreeSet};

use super::members::Members;
use crate::{
    translate::{
        groups::Group,
        sidecars::{Candidate, MOST_OF_AGENT, age, has_taken_port},
    },
    world::{ObjectKey, SidecarPod, World},
};

/// An agent that the listeners of a group reach.
#[derive(Debug)]
pub(super) struct Met {
    /// The gateway that the agent dials.
    pub(super) gateway: ObjectKey,
    /// The maximum of instances of the agent.
    pub(super) instances: usize,
}

/// The pods that agents of a gateway should reach.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// The oldest pods of each group, as many as an agent reaches, and its terminating pods.
    pub(super) pods: Vec<Candidate>,
    /// The number of further pods, which the agent never reaches; by the uid of the agent.
    pub(super) others: BTreeMap<String, usize>,
}

/// The agents of all sidecar groups.
#[derive(Debug, Default)]
pub(super) struct Meetings {
    /// The agents of each group that has any, by uid.
    by_group: BTreeMap<Group, BTreeMap<String, Met>>,
    /// The groups of each agent, by its uid.
    of_agent: BTreeMap<String, BTreeSet<Group>>,
    /// The groups with agents, by the gateway of the agents.
    at_gateway: BTreeMap<ObjectKey, BTreeSet<Group>>,
    /// The number of pods that agents do not reach, by their gateway and the uid of the agent.
    left_out: BTreeMap<ObjectKey, BTreeMap<String, usize>>,
    /// The pods that agents reach, by their gateway and the uid of the agent.
    reached: BTreeMap<ObjectKey, BTreeMap<String, BTreeSet<ObjectKey>>>,
}

impl Meetings {
    /// Replaces the agents of a group. Returns the gateways that these agents dial, or that the earlier agents dialled.
    pub(super) fn set(&mut self, group: &Group, agents: BTreeMap<String, Met>) -> BTreeSet<ObjectKey> {
        let before = self.by_group.remove(group).unwrap_or_default();
        let gateways: BTreeSet<ObjectKey> =
            before.values().chain(agents.values()).map(|met| met.gateway.clone()).collect();
        for (uid, met) in before {
            take_out(&mut self.of_agent, &uid, group);
            take_out(&mut self.at_gateway, &met.gateway, group);
        }
        for (uid, met) in &agents {
            self.of_agent.entry(uid.clone()).or_default().insert(group.clone());
            self.at_gateway.entry(met.gateway.clone()).or_default().insert(group.clone());
        }
        if !agents.is_empty() {
            self.by_group.insert(group.clone(), agents);
        }
        gateways
    }

    /// The groups whose listeners reach the agent of this uid.
    pub(super) fn groups_of(&self, uid: &str) -> impl Iterator<Item = &Group> {
        self.of_agent.get(uid).into_iter().flatten()
    }

    /// The gateways that the agents of a group dial.
    pub(super) fn gateways_of(&self, group: &Group) -> impl Iterator<Item = &ObjectKey> {
        self.by_group.get(group).into_iter().flat_map(BTreeMap::values).map(|met| &met.gateway)
    }

    /// The pods that agents of a gateway should reach. The proxy of a pod cannot listen for agents on a port of the
    /// app. Pods of one group have the same agents, so a large group costs no more than its oldest pods.
    pub(super) fn candidates(&self, gateway: &ObjectKey, members: &Members, world: &World) -> Candidates {
        let mut found = Candidates::default();
        let groups = self.at_gateway.get(gateway).into_iter().flatten();
        for group in groups.filter(|group| !has_taken_port(group)) {
            let (Some(met), Some(pods)) = (self.by_group.get(group), members.pods(group)) else { continue };
            let here = met.iter().filter(|(_, met)| met.gateway == *gateway);
            let agents: BTreeMap<String, usize> = here.map(|(uid, met)| (uid.clone(), met.instances)).collect();
            let pods = pods.iter().filter_map(|key| Some((key, world.sidecar_pods.get(key)?)));
            let (leaving, mut staying): (Vec<_>, Vec<_>) = pods.partition(|(_, pod)| pod.leaving);
            staying.sort_by(|(_, one), (_, other)| age(one.created, &one.uid).cmp(&age(other.created, &other.uid)));
            let others = staying.len().saturating_sub(MOST_OF_AGENT);
            for uid in agents.keys().filter(|_| others > 0) {
                *found.others.entry(uid.clone()).or_default() += others;
            }
            let oldest = staying.into_iter().take(MOST_OF_AGENT).map(|(key, pod)| candidate(key, pod, agents.clone()));
            found.pods.extend(oldest);
            found.pods.extend(leaving.into_iter().map(|(key, pod)| candidate(key, pod, BTreeMap::new())));
        }
        found
    }

    /// Replaces the numbers of pods that agents of a gateway do not reach. Returns the agents whose number changed.
    pub(super) fn leave_out(&mut self, gateway: &ObjectKey, now: BTreeMap<String, usize>) -> BTreeSet<String> {
        replace(&mut self.left_out, gateway, now)
    }

    /// Replaces the pods that agents of a gateway reach. Returns the agents whose pods changed.
    pub(super) fn reach(
        &mut self,
        gateway: &ObjectKey,
        now: BTreeMap<String, BTreeSet<ObjectKey>>,
    ) -> BTreeSet<String> {
        replace(&mut self.reached, gateway, now)
    }

    /// The number of pods that an agent of a gateway does not reach because the agent or the gateway has no room.
    pub(super) fn left_out(&self, gateway: &ObjectKey, uid: &str) -> usize {
        self.left_out.get(gateway).and_then(|agents| agents.get(uid)).copied().unwrap_or_default()
    }

    /// The pods that an agent of a gateway reaches.
    pub(super) fn reached(&self, gateway: &ObjectKey, uid: &str) -> Option<&BTreeSet<ObjectKey>> {
        self.reached.get(gateway)?.get(uid)
    }
}

/// A pod that these agents should reach.
fn candidate(key: &ObjectKey, pod: &SidecarPod, agents: BTreeMap<String, usize>) -> Candidate {
    let SidecarPod { uid, created, address, leaving } = pod.clone();
    Candidate { pod: key.clone(), uid, created, address, leaving, agents }
}

/// Replaces the values for the agents of a gateway. Returns the agents whose value changed.
fn replace<V: PartialEq>(
    all: &mut BTreeMap<ObjectKey, BTreeMap<String, V>>,
    gateway: &ObjectKey,
    now: BTreeMap<String, V>,
) -> BTreeSet<String> {
    let before = all.remove(gateway).unwrap_or_default();
    let uids = before.keys().chain(now.keys());
    let changed = uids.filter(|uid| before.get(*uid) != now.get(*uid)).cloned().collect();
    if !now.is_empty() {
        all.insert(gateway.clone(), now);
    }
    changed
}

/// Removes a group from the set of this key.
fn take_out<K: Ord>(sets: &mut BTreeMap<K, BTreeSet<Group>>, key: &K, group: &Group) {
    if let Some(groups) = sets.get_mut(key) {
        groups.remove(group);
        if groups.is_empty() {
            sets.remove(key);
        }
    }
}
