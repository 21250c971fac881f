//! The sidecars that agents of a gateway keep sessions with.
//!
//! Each agent reaches the oldest pods of its forwards, up to a bound, so that a new pod displaces no other. Sessions of
//! further pods find no instance, so the status must report them. Agents do not learn of a terminating pod, but
//! connections for it are handed over: its sessions outlive their carriers until the app ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use proxy_api::{MAX_SIDECARS, SIDECAR_TUNNEL_PORT, Sidecar, Transport};
use tunnel_core::door::TO_SIDECARS;
pub use tunnel_core::places::MAX_SIDECARS as MOST_OF_AGENT;

use crate::{names::sidecar_id, translate::groups::Group, world::ObjectKey};

/// Part of the sidecars and connections of a gateway that a namespace with a share has: a half.
const PART: usize = 2;

/// A pod with a sidecar whose forwards use agents of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The pod.
    pub pod: ObjectKey,
    /// Uid of the pod.
    pub uid: String,
    /// Creation time, seconds since 1970. A pod without one counts as the youngest.
    pub created: Option<u64>,
    /// Address of the pod.
    pub address: IpAddr,
    /// Whether the pod is being deleted.
    pub leaving: bool,
    /// The maximum of instances of each of the pod's agents, by uid.
    pub agents: BTreeMap<String, usize>,
}

/// The sidecars that each agent of a gateway reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The sidecars by their ids as endpoints of tunnels.
    pub sidecars: BTreeMap<String, Sidecar>,
    /// The number of pods that an agent does not reach because the agent, the gateway or the share of the namespace has
    /// no room, by the uid of the agent.
    pub left_out: BTreeMap<String, usize>,
    /// The pods that an agent reaches, by the uid of the agent.
    pub reached: BTreeMap<String, BTreeSet<ObjectKey>>,
}

/// What the pods of one namespace have of a table.
#[derive(Debug, Default)]
struct Held {
    sidecars: usize,
    carriers: usize,
}

/// The table of the gateway of this uid. The table is small enough for one proxy to hand over all connections. A
/// namespace for which `has_share` is true has at most half of it.
#[must_use]
pub fn table(
    gateway_uid: &str,
    has_share: impl Fn(&str) -> bool,
    candidates: impl IntoIterator<Item = Candidate>,
) -> Table {
    let mut candidates: Vec<Candidate> = candidates.into_iter().collect();
    candidates.sort_by(|one, other| age(one.created, &one.uid).cmp(&age(other.created, &other.uid)));
    let (leaving, candidates): (Vec<Candidate>, Vec<Candidate>) =
        candidates.into_iter().partition(|candidate| candidate.leaving);
    let mut table = Table::default();
    let (mut taken, mut carriers) = (BTreeMap::<String, usize>::new(), 0_usize);
    let mut by_namespace = BTreeMap::<String, Held>::new();
    for Candidate { pod, uid, address, agents, .. } in candidates {
        let part = if has_share(&pod.namespace) { PART } else { 1 };
        let held = by_namespace.entry(pod.namespace.clone()).or_default();
        let is_full = table.sidecars.len() == MAX_SIDECARS || held.sidecars == MAX_SIDECARS / part;
        let mut reached = BTreeSet::new();
        for (agent, instances) in agents {
            let sidecars = taken.entry(agent.clone()).or_default();
            let with_it = carriers.saturating_add(instances);
            let held_with_it = held.carriers.saturating_add(instances);
            let is_too_much = with_it > TO_SIDECARS || held_with_it > TO_SIDECARS / part;
            if is_full || *sidecars == MOST_OF_AGENT || is_too_much {
                *table.left_out.entry(agent).or_default() += 1;
                continue;
            }
            *sidecars += 1;
            (carriers, held.carriers) = (with_it, held_with_it);
            table.reached.entry(agent.clone()).or_default().insert(pod.clone());
            reached.insert(agent);
        }
        if !reached.is_empty() {
            held.sidecars += 1;
            let sidecar = Sidecar { address, agents: reached };
            table.sidecars.insert(sidecar_id(&uid, gateway_uid), sidecar);
        }
    }
    let room = MAX_SIDECARS.saturating_sub(table.sidecars.len());
    for Candidate { uid, address, .. } in leaving.into_iter().take(room) {
        let sidecar = Sidecar { address, agents: BTreeSet::new() };
        table.sidecars.insert(sidecar_id(&uid, gateway_uid), sidecar);
    }
    table
}

/// Whether the app in the pods of a group uses the port at which agents reach sidecars.
pub(crate) fn has_taken_port(group: &Group) -> bool {
    group.sidecars().is_some_and(|group| group.app_ports().contains(&(Transport::Tcp, SIDECAR_TUNNEL_PORT)))
}

/// Orders pods by age, and pods of the same age by uid.
pub(crate) fn age(created: Option<u64>, uid: &str) -> (bool, Option<u64>, &str) {
    (created.is_none(), created, uid)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn candidate(number: u32, created: Option<u64>, agents: &[&str]) -> Candidate {
        Candidate {
            pod: ObjectKey::new("ns", format!("p-{number}")),
            uid: format!("p-{number}"),
            created,
            address: Ipv4Addr::from_bits(0x0a00_0000 + number).into(),
            leaving: false,
            agents: agents.iter().map(|uid| ((*uid).to_owned(), 1)).collect(),
        }
    }

    /// The table of the gateway `g-1`, at which no namespace has a share.
    fn unshared(candidates: impl IntoIterator<Item = Candidate>) -> Table {
        table("g-1", |_| false, candidates)
    }

    /// The agents of the pod of this number, if it is in the table.
    fn agents_of(table: &Table, number: u32) -> Vec<&str> {
        let reached = table.sidecars.get(&sidecar_id(&format!("p-{number}"), "g-1"));
        reached.into_iter().flat_map(|reached| &reached.agents).map(String::as_str).collect()
    }

    #[test]
    fn a_sidecar_has_an_id_for_each_gateway() {
        assert_eq!(sidecar_id("p-1", "g-1"), "c6672129cb9a9cf7517c9cb98d6f2eec");
        assert_eq!(sidecar_id("p-1", "g-2"), "916f7cc7d7a6a09d47c39edd5de60702");
    }

    #[test]
    fn agents_reach_the_oldest_pods_and_what_is_left_out_is_counted() {
        let most = u32::try_from(MOST_OF_AGENT).expect("few");
        // The youngest come first.
        let mut candidates: Vec<Candidate> =
            (0..most + 2).rev().map(|number| candidate(number, Some(u64::from(number)), &["u-1"])).collect();
        candidates.push(candidate(most + 2, None, &["u-1", "u-2"]));
        let table = unshared(candidates);
        assert_eq!(table.sidecars.len(), MOST_OF_AGENT + 1);
        assert_eq!((agents_of(&table, 0), agents_of(&table, most - 1)), (vec!["u-1"], vec!["u-1"]));
        assert!(agents_of(&table, most).is_empty() && agents_of(&table, most + 1).is_empty());
        assert_eq!(agents_of(&table, most + 2), ["u-2"], "another agent has room");
        assert_eq!(table.left_out, BTreeMap::from([("u-1".to_owned(), 3)]));
        assert_eq!((table.reached["u-1"].len(), table.reached["u-2"].len()), (MOST_OF_AGENT, 1));
        let first = &table.sidecars[&sidecar_id("p-0", "g-1")];
        assert_eq!(first.address, IpAddr::from([10, 0, 0, 0]));
    }

    #[test]
    fn a_pod_that_leaves_is_named_to_no_agent_and_takes_nobodys_place() {
        let most = u32::try_from(MAX_SIDECARS).expect("few");
        let agent = |number: u32| format!("u-{}", number / 30);
        let staying = |count: u32| (0..count).map(|number| candidate(number, Some(1), &[agent(number).as_str()]));
        let leaving = || Candidate { leaving: true, ..candidate(most, Some(0), &["u-0"]) };
        let found = unshared(staying(31).chain([leaving()]));
        let id = sidecar_id(&format!("p-{most}"), "g-1");
        assert_eq!(found.sidecars.get(&id).map(|sidecar| sidecar.agents.len()), Some(0));
        assert_eq!((found.sidecars.len(), found.reached["u-0"].len()), (32, 30));
        let full = unshared(staying(most).chain([leaving()]));
        assert!(full.left_out.is_empty() && full.sidecars.len() == MAX_SIDECARS && !full.sidecars.contains_key(&id));
    }

    #[test]
    fn a_gateway_has_no_more_sidecars_than_its_proxies_read() {
        let candidates = (0..1030).map(|number| {
            let agent = format!("u-{}", number / 30);
            candidate(number, Some(u64::from(number)), &[agent.as_str()])
        });
        let table = unshared(candidates);
        assert_eq!(table.sidecars.len(), MAX_SIDECARS);
        assert_eq!(table.left_out, BTreeMap::from([("u-34".to_owned(), 6)]));
    }

    #[test]
    fn one_proxy_of_a_gateway_can_hand_over_the_connections_of_all_instances() {
        let candidates = (0..96).map(|number| {
            let agents = BTreeMap::from([(format!("u-{}", number / 32), TO_SIDECARS / 64)]);
            Candidate { agents, ..candidate(number, Some(u64::from(number)), &[]) }
        });
        let table = unshared(candidates);
        assert_eq!(table.sidecars.len(), 64);
        assert_eq!(table.left_out, BTreeMap::from([("u-2".to_owned(), 32)]));
    }

    /// A candidate of this namespace with an agent for each 32 pods of the namespace.
    fn of(namespace: &str, number: u32, instances: usize) -> Candidate {
        let agents = BTreeMap::from([(format!("{namespace}-{}", number / 32), instances)]);
        let pod = ObjectKey::new(namespace, format!("p-{number}"));
        Candidate { pod, uid: format!("{namespace}-p-{number}"), agents, ..candidate(number, Some(1), &[]) }
    }

    /// The pods that agents reach, counted by namespace, where `ns` has no share.
    fn reached(candidates: impl IntoIterator<Item = Candidate>) -> BTreeMap<String, usize> {
        let table = table("g-1", |namespace| namespace != "ns", candidates);
        let mut counts = BTreeMap::new();
        for pod in table.reached.into_values().flatten() {
            *counts.entry(pod.namespace).or_default() += 1;
        }
        counts
    }

    #[test]
    fn the_older_pods_of_a_namespace_with_a_share_leave_half_of_the_sidecars_to_others() {
        let counts = |all: &[(&str, usize)]| -> BTreeMap<String, usize> {
            all.iter().map(|(namespace, count)| ((*namespace).to_owned(), *count)).collect()
        };
        let most = u32::try_from(MAX_SIDECARS).expect("few");
        let all_of = |namespace: &'static str| (0..most).map(move |number| of(namespace, number, 1));
        let younger = (0..8).map(|number| Candidate { created: Some(2), ..of("modest", number, 1) });
        let shared = reached(all_of("greedy").chain(younger));
        assert_eq!(shared, counts(&[("greedy", MAX_SIDECARS / 2), ("modest", 8)]));
        assert_eq!(reached(all_of("ns")), counts(&[("ns", MAX_SIDECARS)]), "the own namespace has no share");
        // Each pod has a 64th of all connections.
        let wide = |namespace: &'static str| (0..64).map(move |number| of(namespace, number, TO_SIDECARS / 64));
        assert_eq!(reached(wide("greedy")), counts(&[("greedy", 32)]));
        assert_eq!(reached(wide("ns")), counts(&[("ns", 64)]));
    }
}
