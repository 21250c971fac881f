//! The pods of each group: a gateway's fleet comes from its proxy pods, a sidecar group from the translation.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    status::data_plane::{Fleet, PodIssue},
    translate::{groups::Group, translator::Translator, update::Update},
    world::{
        ObjectKey,
        cache::{Cache, Touched},
        crash_loop::CrashLoop,
        proxy_id::ProxyId,
    },
};

/// How the pods of a group changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pods {
    /// Pods joined or left, or their readiness changed; only counts in status follow.
    Other,
    /// The first ready pod appeared or the last one was lost, or pod issues appeared or cleared.
    AnyReady,
}

/// Groups whose pods changed.
pub type Moved = BTreeMap<Group, Pods>;

/// The fleets of all groups, for one leader election term.
#[derive(Debug, Default)]
pub struct Fleets {
    by_group: BTreeMap<Group, Fleet>,
    /// The group of each pod in a gateway's fleet, terminating pods included.
    gateway_of: BTreeMap<ObjectKey, Group>,
    /// Apps in a crash loop, by pod.
    crash_loops: BTreeMap<ObjectKey, CrashLoop>,
    /// Pods whose group may have changed.
    placed: BTreeSet<ObjectKey>,
}

impl Fleets {
    /// The fleets by group.
    pub fn all(&self) -> &BTreeMap<Group, Fleet> {
        &self.by_group
    }

    /// Returns the group of a pod.
    pub fn group_of<'a>(&'a self, pod: &ObjectKey, translator: &'a Translator) -> Option<&'a Group> {
        self.gateway_of.get(pod).or_else(|| translator.group_of(pod))
    }

    /// Takes the pods whose group may have changed since the last call.
    pub fn take_placed(&mut self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.placed)
    }

    /// Updates the fleets from pods and snapshots; returns the groups whose pods changed.
    pub fn update(&mut self, touched: &Touched, update: &Update, cache: &Cache, translator: &Translator) -> Moved {
        let mut moved = Moved::new();
        let mut pods: BTreeSet<&ObjectKey> = touched.proxy_pods.iter().collect();
        if touched.changes.all || !touched.changes.gateways.is_empty() {
            // A pod belongs to a fleet only while the gateway exists.
            pods.extend(cache.proxy_pods.keys());
        }
        let mut gateways: BTreeSet<Group> = touched.changes.gateways.iter().cloned().map(Group::Gateway).collect();
        if touched.changes.all {
            gateways.extend(cache.world.gateways.keys().cloned().map(Group::Gateway));
        }
        let mut with_issues: BTreeSet<&ObjectKey> = touched.changes.pods.iter().collect();
        for pod in pods {
            if self.note_crash_loop(pod, cache) {
                with_issues.insert(pod);
            }
            let group = cache.gateway_of(pod).map(Group::Gateway);
            gateways.extend(group.clone());
            let old = match group {
                Some(group) => self.gateway_of.insert(pod.clone(), group),
                None => self.gateway_of.remove(pod),
            };
            gateways.extend(old);
            self.placed.insert(pod.clone());
        }
        for group in gateways {
            self.gateway(group, cache, translator, &mut moved);
        }
        // A pod whose issue changed stays in its group, so the translator does not list that group in `update.pods`.
        let with_issues: BTreeSet<&Group> =
            with_issues.into_iter().filter_map(|pod| translator.group_of(pod)).collect();
        for group in update.pods.iter().chain(with_issues.into_iter().filter(|group| !update.pods.contains(*group))) {
            self.sidecars(group, cache, translator, &mut moved);
        }
        self.placed.extend(touched.changes.pods.union(&update.placed).cloned());
        for group in &update.programs {
            if let (Some(fleet), Some(snapshot)) = (self.by_group.get_mut(group), translator.snapshot(group)) {
                fleet.snapshot = snapshot.clone();
            }
        }
        moved
    }

    /// Records the crash loop of a sidecar pod's app; returns whether it changed.
    fn note_crash_loop(&mut self, pod: &ObjectKey, cache: &Cache) -> bool {
        let info = cache.proxy_pods.get(pod).filter(|info| info.gateway.is_none());
        let now = info.and_then(|info| info.crash_loop.clone());
        let before = match now.clone() {
            Some(crash_loop) => self.crash_loops.insert(pod.clone(), crash_loop),
            None => self.crash_loops.remove(pod),
        };
        before != now
    }

    fn gateway(&mut self, group: Group, cache: &Cache, translator: &Translator, moved: &mut Moved) {
        let Group::Gateway(key) = &group else { return };
        if !cache.world.gateways.contains_key(key) {
            self.by_group.remove(&group);
            return;
        }
        let first = ObjectKey::new(key.namespace.clone(), "");
        let here = cache.proxy_pods.range(first..).take_while(|(pod, _)| pod.namespace == key.namespace);
        let stay = here.filter(|(pod, info)| !info.leaving && self.gateway_of.get(*pod) == Some(&group));
        let (mut members, mut ready) = (BTreeSet::new(), 0);
        for (pod, info) in stay {
            members.insert(ProxyId::Pod(pod.clone()));
            ready += usize::from(info.ready);
        }
        self.set(group, Fleet { members, ready, ..Fleet::default() }, translator, moved);
    }

    fn sidecars(&mut self, group: &Group, cache: &Cache, translator: &Translator, moved: &mut Moved) {
        if let Some(pods) = translator.pods(group) {
            // The proxy of a terminating pod runs its last configuration until the app has ended. No status waits for
            // such a proxy.
            let known = |key: &ObjectKey| cache.world.pods.get(key).filter(|pod| !pod.leaving);
            let stay = || pods.iter().filter(|pod| known(pod).is_some());
            let issue = |pod: &ObjectKey| {
                Some((ProxyId::Pod(pod.clone()), PodIssue::of(known(pod)?, self.crash_loops.get(pod))?))
            };
            let issues = stay().filter_map(issue).collect();
            let members: BTreeSet<ProxyId> = stay().cloned().map(ProxyId::Pod).collect();
            let next = Fleet { ready: members.len(), members, issues, ..Fleet::default() };
            self.set(group.clone(), next, translator, moved);
        } else {
            self.by_group.remove(group);
        }
    }

    fn set(&mut self, group: Group, next: Fleet, translator: &Translator, moved: &mut Moved) {
        let snapshot = translator.snapshot(&group).cloned().unwrap_or_default();
        let old = self.by_group.get(&group);
        if old.is_some_and(|old| old.members == next.members && old.ready == next.ready && old.issues == next.issues) {
            return;
        }
        let is_known = |fleet: &Fleet| {
            let uninjected = fleet.issues.values().any(|issue| !issue.injected);
            (fleet.ready > 0, fleet.issues.is_empty(), uninjected)
        };
        let is_other = old.map_or((false, true, false), is_known) != is_known(&next);
        moved.insert(group.clone(), if is_other { Pods::AnyReady } else { Pods::Other });
        self.by_group.insert(group, Fleet { snapshot, ..next });
    }
}
