//! All UDP flows of the process, by namespace and in order of last use: idle ones give way where room runs short.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use foldhash::HashMap;

use super::{
    WORK,
    recency::{Mark, Recency},
};

/// The flows of all namespaces.
#[derive(Debug, Default)]
pub struct FlowRegistry(Mutex<HashMap<Arc<str>, Recency>>);

impl FlowRegistry {
    /// Adds a flow of a namespace, used at `now` (milliseconds).
    #[must_use]
    pub fn register(self: &Arc<Self>, namespace: &str, mark: Arc<Mark>, source: IpAddr, now: u64) -> Member {
        let mut groups = self.lock();
        let known = groups.get_key_value(namespace).map(|(name, _)| name.clone());
        let namespace = known.unwrap_or_else(|| namespace.into());
        let key = groups.entry(namespace.clone()).or_default().file(mark.clone(), source, now);
        Member { registry: self.clone(), namespace, key, mark }
    }

    /// Evicts a flow that is idle at `now` (milliseconds), unless `keep` flows or fewer are left; returns whether one goes.
    ///
    /// The namespace with the most flows gives way, and of its flows the one that was used least recently. If all its
    /// flows are in use, the next namespace does. For a new flow, no namespace with fewer flows than that of the
    /// newcomer gives way, so that none can fill the process at the cost of the others.
    pub fn evict(&self, newcomer: Option<&str>, keep: usize, now: u64) -> bool {
        let mut groups = self.lock();
        if groups.values().map(Recency::len).sum::<usize>() <= keep {
            return false;
        }
        let own = newcomer.and_then(|name| groups.get(name)).map_or(0, Recency::len);
        let mut work = WORK;
        // The first one has an idle flow, as a rule: then nothing is asked of the others.
        let first = largest(groups.iter_mut(), newcomer, |flows| flows.len() >= own);
        let mut taken = first.and_then(|name| groups.get_mut(&name)?.take_idle(now, &mut work));
        if taken.is_none() {
            let next =
                largest(groups.iter_mut(), newcomer, |flows| flows.len() >= own && flows.has_idle(now, &mut work));
            taken = next.and_then(|name| groups.get_mut(&name)?.take_idle(now, &mut work));
        }
        drop(groups);
        let Some((mark, _)) = taken else { return false };
        mark.evict();
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Recency>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The namespace with the most flows of those that `is_evictable` admits; of equals, that of the newcomer. Asks only of
/// those that are larger than what it has found. One pass, because all threads wait for the lock meanwhile.
fn largest<'a>(
    groups: impl Iterator<Item = (&'a Arc<str>, &'a mut Recency)>,
    newcomer: Option<&str>,
    mut is_evictable: impl FnMut(&mut Recency) -> bool,
) -> Option<Arc<str>> {
    let mut found: Option<(usize, bool, &Arc<str>)> = None;
    for (name, flows) in groups {
        let rank = (flows.len(), newcomer == Some(&**name), name);
        if found.is_none_or(|before| rank > before) && is_evictable(flows) {
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
    key: usize,
    mark: Arc<Mark>,
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut groups = self.registry.lock();
        let Some(flows) = groups.get_mut(&self.namespace) else { return };
        flows.leave(self.key, &self.mark);
        if flows.len() == 0 {
            groups.remove(&self.namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn register(registry: &Arc<FlowRegistry>, namespace: &str, at: u64) -> Member {
        registry.register(namespace, Arc::default(), HERE, at)
    }

    fn gone(members: &[Member]) -> Vec<usize> {
        (0..members.len()).filter(|at| members[*at].mark.is_evicted()).collect()
    }

    #[test]
    fn the_flow_that_was_used_least_recently_gives_way_and_none_that_is_in_use() {
        let registry = Arc::new(FlowRegistry::default());
        let flows = [register(&registry, "a", 5), register(&registry, "a", 3), register(&registry, "a", 4)];
        flows[1].mark.touch(9000);
        assert!(registry.evict(Some("a"), 0, 9500));
        assert_eq!(gone(&flows), [2]);
        assert!(registry.evict(None, 1, 9500));
        assert!(!registry.evict(None, 1, 99_000), "one is kept");
        assert!(!registry.evict(None, 0, 9500), "it is in use");
        assert_eq!(gone(&flows), [0, 2]);
        drop(flows);
        assert!(registry.lock().is_empty());
    }

    #[test]
    fn if_all_flows_of_the_largest_namespace_are_in_use_the_largest_with_an_idle_one_gives_way() {
        let registry = Arc::new(FlowRegistry::default());
        let mut members = Vec::new();
        for (at, (namespace, count)) in [("b", 1), ("d", 3), ("f", 5), ("e", 4), ("c", 2)].into_iter().enumerate() {
            members.extend((0..count).map(|_| register(&registry, namespace, at as u64)));
        }
        members.iter().filter(|it| ["e", "f"].contains(&&*it.namespace)).for_each(|it| it.mark.touch(5000));
        assert!(registry.evict(Some("new"), 0, 5000));
        let gone: Vec<&str> = members.iter().filter(|it| it.mark.is_evicted()).map(|it| &*it.namespace).collect();
        assert_eq!(gone, ["d"]);
    }

    #[test]
    fn the_namespace_with_the_most_flows_gives_way_and_never_a_smaller_one_to_a_larger() {
        let registry = Arc::new(FlowRegistry::default());
        let small: Vec<Member> = (0..2).map(|at| register(&registry, "small", at)).collect();
        let large: Vec<Member> = (0..4).map(|at| register(&registry, "large", 100 + at)).collect();
        assert!(registry.evict(Some("small"), 0, 5000) && registry.evict(Some("new"), 0, 5000));
        assert_eq!((gone(&small), gone(&large)), (vec![], vec![0, 1]));
        assert!(registry.evict(Some("small"), 0, 5000), "of equals, the newcomer's own");
        assert_eq!((gone(&small), gone(&large)), (vec![0], vec![0, 1]));
        for flow in &large {
            flow.mark.touch(5000);
        }
        assert!(!registry.evict(Some("large"), 0, 5000), "all its own are in use");
        assert!(registry.evict(None, 0, 5000), "a connection has no namespace yet");
        assert_eq!(gone(&small), [0, 1]);
    }
}
