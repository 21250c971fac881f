//! All UDP flows of the process, by namespace and source; some are evicted when room runs short.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use foldhash::HashMap;

use super::{
    WORK,
    by_source::{BySource, Victim},
    recency::Mark,
};
use crate::core::udp::flows::FlowKey;

/// The most sources that are searched for an idle flow, beside the first one of each namespace: other workers wait
/// meanwhile, and a client with many addresses could make each datagram search thousands.
const MOST_ASKED: usize = 64;

type Groups = HashMap<Arc<str>, BySource>;

/// The flows of all namespaces.
#[derive(Debug, Default)]
pub struct FlowRegistry(Mutex<Groups>);

/// A flow that asks for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newcomer<'a> {
    /// Namespace of the forward.
    pub namespace: &'a str,
    /// Address of the client.
    pub source: IpAddr,
}

impl FlowRegistry {
    /// Adds a flow of a namespace, used at `now` (milliseconds).
    #[must_use]
    pub fn register(self: &Arc<Self>, namespace: &str, mark: Arc<Mark>, key: FlowKey, now: u64) -> Member {
        let mut groups = self.lock();
        let known = groups.get_key_value(namespace).map(|(name, _)| name.clone());
        let namespace = known.unwrap_or_else(|| namespace.into());
        let at = groups.entry(namespace.clone()).or_default().file(mark.clone(), key, now);
        Member { registry: self.clone(), namespace, at, mark }
    }

    /// Whether another namespace, or another source of the same namespace, has at least twice as many flows as the
    /// newcomer's would have. Such a newcomer always gets room at the expense of the other.
    #[must_use]
    pub fn is_light(&self, newcomer: Newcomer<'_>) -> bool {
        heavier(&self.lock(), newcomer).is_some()
    }

    /// Evicts a flow, unless at most `keep` flows are left.
    ///
    /// The flow is of the namespace with the most flows; in it, of the source with the most flows; of that source, it
    /// is the least recently used. Only flows that are idle at `now` (milliseconds) are evicted. For a light newcomer
    /// ([`Self::is_light`]), flows of the heavier namespace or source are evicted even if they are in use: flows
    /// without a conversation first, and flows with one only if no flow is idle. No namespace and no source with fewer
    /// flows than the newcomer's loses one to it, so that none can fill the process at the expense of the others.
    pub fn evict(&self, newcomer: Option<Newcomer<'_>>, keep: usize, now: u64) -> Option<Victim> {
        let mut groups = self.lock();
        if groups.values().map(BySource::len).sum::<usize>() <= keep {
            return None;
        }
        let mut work = WORK;
        let heavier = newcomer.and_then(|newcomer| heavier(&groups, newcomer));
        let victim = take_heavy(&mut groups, heavier.as_deref(), false, now, &mut work)
            .or_else(|| take_idle(&mut groups, newcomer, now, &mut work))
            .or_else(|| take_heavy(&mut groups, heavier.as_deref(), true, now, &mut work));
        drop(groups);
        if let Some(victim) = &victim {
            victim.mark.evict();
        }
        victim
    }

    fn lock(&self) -> MutexGuard<'_, Groups> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `most` is at least twice as many as `own` plus one.
fn is_twice(own: usize, most: usize) -> bool {
    own.saturating_add(1).saturating_mul(2) <= most
}

/// The namespace that is heavier than the newcomer's, or the newcomer's own if one of its sources is heavier.
fn heavier(groups: &Groups, newcomer: Newcomer<'_>) -> Option<Arc<str>> {
    let own = groups.get_key_value(newcomer.namespace);
    let count = own.map_or(0, |(_, flows)| flows.len());
    let (most, _, name) =
        groups.iter().map(|(name, flows)| (flows.len(), newcomer.namespace == &**name, name)).max()?;
    if is_twice(count, most) {
        return Some(name.clone());
    }
    let (name, flows) = own?;
    is_twice(flows.count(newcomer.source), flows.most()).then(|| name.clone())
}

/// Takes the first flow of the heaviest source of a namespace if it is idle or carries no conversation, or if
/// `anyway` is set.
fn take_heavy(
    groups: &mut Groups,
    namespace: Option<&str>,
    anyway: bool,
    now: u64,
    work: &mut usize,
) -> Option<Victim> {
    let flows = groups.get_mut(namespace?)?;
    let (at, gives_way) = flows.first_of_heaviest(now, work)?;
    if gives_way || anyway { flows.take(at) } else { None }
}

/// Takes an idle flow of the largest namespace that has one and has no fewer flows than the newcomer's.
fn take_idle(groups: &mut Groups, newcomer: Option<Newcomer<'_>>, now: u64, work: &mut usize) -> Option<Victim> {
    let own = newcomer.and_then(|it| groups.get(it.namespace)).map_or(0, BySource::len);
    // The first namespace usually has an idle flow: then the others are not searched.
    let first = largest(groups, newcomer, |_, flows| flows.len() >= own)?;
    let mut more = MOST_ASKED;
    if let Some(victim) = take_idle_of(groups, &first, newcomer, now, (&mut *work, &mut more)) {
        return Some(victim);
    }
    let next = largest(groups, newcomer, |name, flows| {
        flows.len() >= own && idle_of(flows, name, newcomer, now, (&mut *work, &mut more)).is_some()
    })?;
    // The namespace has an idle flow, and the same sources are searched again.
    more = MOST_ASKED;
    take_idle_of(groups, &next, newcomer, now, (work, &mut more))
}

fn take_idle_of(
    groups: &mut Groups,
    namespace: &str,
    newcomer: Option<Newcomer<'_>>,
    now: u64,
    bounds: (&mut usize, &mut usize),
) -> Option<Victim> {
    let flows = groups.get_mut(namespace)?;
    let at = idle_of(flows, namespace, newcomer, now, bounds)?;
    flows.take(at)
}

/// The place of an idle flow of a namespace, but never of a source with fewer flows than the newcomer's. `work` and
/// `more` as for [`BySource::idle`].
fn idle_of(
    flows: &mut BySource,
    namespace: &str,
    newcomer: Option<Newcomer<'_>>,
    now: u64,
    (work, more): (&mut usize, &mut usize),
) -> Option<usize> {
    let own = newcomer.filter(|it| it.namespace == namespace);
    let least = own.map_or(0, |it| flows.count(it.source));
    flows.idle(least, now, work, more)
}

/// The namespace with the most flows among those that `is_evictable` admits; among equals, the newcomer's. Calls it
/// only for namespaces that are larger than the best so far. One pass, because all threads wait for the lock meanwhile.
fn largest(
    groups: &mut Groups,
    newcomer: Option<Newcomer<'_>>,
    mut is_evictable: impl FnMut(&str, &mut BySource) -> bool,
) -> Option<Arc<str>> {
    let mut found: Option<(usize, bool, &Arc<str>)> = None;
    for (name, flows) in groups.iter_mut() {
        let rank = (flows.len(), newcomer.is_some_and(|it| it.namespace == &**name), name);
        if found.is_none_or(|before| rank > before) && is_evictable(name, flows) {
            found = Some(rank);
        }
    }
    found.map(|(.., name)| name.clone())
}

/// A flow's membership; it leaves on drop.
#[derive(Debug)]
pub struct Member {
    registry: Arc<FlowRegistry>,
    namespace: Arc<str>,
    at: usize,
    mark: Arc<Mark>,
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut groups = self.registry.lock();
        let Some(flows) = groups.get_mut(&self.namespace) else { return };
        flows.leave(self.at, &self.mark);
        if flows.len() == 0 {
            groups.remove(&self.namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    const HERE: [u8; 4] = [127, 0, 0, 1];

    #[allow(clippy::unnecessary_wraps, reason = "the form that the registry takes")]
    fn newcomer(namespace: &str) -> Option<Newcomer<'_>> {
        Some(Newcomer { namespace, source: HERE.into() })
    }

    fn register_from(registry: &Arc<FlowRegistry>, namespace: &str, source: [u8; 4], at: u64) -> Member {
        let key = FlowKey { client: SocketAddr::from((source, 1)), local: None };
        registry.register(namespace, Arc::default(), key, at)
    }

    fn register(registry: &Arc<FlowRegistry>, namespace: &str, at: u64) -> Member {
        register_from(registry, namespace, HERE, at)
    }

    fn converse(member: &Member, at: u64) {
        member.mark.answer();
        member.mark.ask();
        member.mark.touch(at);
    }

    fn gone(members: &[Member]) -> Vec<usize> {
        (0..members.len()).filter(|at| members[*at].mark.is_evicted()).collect()
    }

    #[test]
    fn the_flow_that_was_used_least_recently_gives_way_and_none_that_is_in_use() {
        let registry = Arc::new(FlowRegistry::default());
        let flows = [register(&registry, "a", 5), register(&registry, "a", 3), register(&registry, "a", 4)];
        flows[1].mark.touch(9000);
        assert!(registry.evict(newcomer("a"), 0, 9500).is_some());
        assert_eq!(gone(&flows), [2]);
        assert!(registry.evict(None, 1, 9500).is_some());
        assert!(registry.evict(None, 1, 99_000).is_none(), "one is kept");
        assert!(registry.evict(None, 0, 9500).is_none(), "it is in use");
        assert_eq!(gone(&flows), [0, 2]);
        drop(flows);
        assert!(registry.lock().is_empty());
    }

    #[test]
    fn if_all_flows_of_the_largest_namespace_converse_the_largest_with_an_idle_one_gives_way() {
        let registry = Arc::new(FlowRegistry::default());
        let mut members = Vec::new();
        for (at, (namespace, count)) in [("b", 1), ("d", 3), ("f", 5), ("e", 4), ("c", 2)].into_iter().enumerate() {
            members.extend((0..count).map(|_| register(&registry, namespace, at as u64)));
        }
        members.iter().filter(|it| ["e", "f"].contains(&&*it.namespace)).for_each(|it| converse(it, 5000));
        let mut gone = || {
            assert!(registry.evict(newcomer("new"), 0, 5000).is_some());
            let gone = members.iter().position(|it| it.mark.is_evicted()).expect("one has gone");
            members.remove(gone).namespace.to_string()
        };
        assert_eq!([(); 7].map(|()| gone()), ["d", "d", "c", "d", "c", "b", "f"], "one in use if none is idle");
    }

    #[test]
    fn the_namespace_with_the_most_flows_gives_way_and_never_a_smaller_one_to_a_larger() {
        let registry = Arc::new(FlowRegistry::default());
        let small: Vec<Member> = (0..2).map(|at| register(&registry, "small", at)).collect();
        let large: Vec<Member> = (0..4).map(|at| register(&registry, "large", 100 + at)).collect();
        let evicts = |namespace| registry.evict(newcomer(namespace), 0, 5000).is_some();
        assert!(evicts("small") && evicts("new"));
        assert_eq!((gone(&small), gone(&large)), (vec![], vec![0, 1]));
        assert!(evicts("small"), "of equals, the newcomer's own");
        assert_eq!((gone(&small), gone(&large)), (vec![0], vec![0, 1]));
        for flow in &large {
            flow.mark.touch(5000);
        }
        assert!(!evicts("large"), "all its own are in use");
        assert!(registry.evict(None, 0, 5000).is_some(), "a connection has no namespace yet");
        assert_eq!(gone(&small), [0, 1]);
    }

    #[test]
    fn a_source_with_few_flows_takes_the_room_of_one_with_many_also_if_those_are_in_use() {
        let registry = Arc::new(FlowRegistry::default());
        let own = register_from(&registry, "a", [192, 0, 2, 1], 0);
        let flood: Vec<Member> = (0..5).map(|at| register_from(&registry, "a", [192, 0, 2, 2], 4000 + at)).collect();
        let from = |last| Newcomer { namespace: "a", source: IpAddr::from([192, 0, 2, last]) };
        assert!(registry.is_light(from(1)) && registry.is_light(from(3)) && !registry.is_light(from(2)));
        assert!(registry.evict(Some(from(2)), 0, 4500).is_none(), "the only idle flow is of another source");
        let victim = registry.evict(Some(from(1)), 0, 4500).expect("a flow of the flood");
        assert_eq!(victim.key.client.ip(), from(2).source);
        assert_eq!((gone(&flood), own.mark.is_evicted()), (vec![0], false));
        let _second = register_from(&registry, "a", [192, 0, 2, 1], 4500);
        assert!(!registry.is_light(from(1)), "its third flow beside the four of the flood");
        assert!(registry.evict(Some(from(1)), 0, 4600).is_some_and(|it| Arc::ptr_eq(&it.mark, &own.mark)));
    }

    #[test]
    fn a_search_for_an_idle_flow_asks_a_bounded_number_of_sources_of_all_namespaces_together() {
        let registry = Arc::new(FlowRegistry::default());
        let mut flows = Vec::new();
        // Sources of 1 to 40 flows in each namespace. All flows are in use except that of the smallest source of `a`,
        // which the search reaches last.
        for namespace in ["a", "b"] {
            for last in 1..=40 {
                let at = if (namespace, last) == ("a", 1) { 0 } else { 5000 };
                flows.extend((0..last).map(|_| register_from(&registry, namespace, [192, 0, 2, last], at)));
            }
        }
        assert!(registry.evict(None, 0, 5500).is_none());
        flows.retain(|flow| &*flow.namespace == "a");
        assert!(registry.evict(None, 0, 5500).is_some());
    }
}
