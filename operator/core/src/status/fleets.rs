//! Which pods run what: the fleets of gateways by the pods that carry a proxy, those of sidecars by the translation.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    status::data_plane::{Fleet, PodIssue},
    translate::{groups::Group, translator::Translator, update::Update},
    world::{
        ObjectKey,
        cache::{Cache, Touched},
        crash_loop::CrashLoop,
    },
};

/// What became of the pods of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pods {
    /// Pods came or went.
    Other,
    /// The first ready pod came or the last one went, or pod issues appeared or cleared.
    AnyReady,
}

/// Groups with something new.
pub type Moved = BTreeMap<Group, Pods>;

/// The fleets of one term.
#[derive(Debug, Default)]
pub struct Fleets {
    by_group: BTreeMap<Group, Fleet>,
    /// The gateway's group of each pod that is in its fleet, leaving or not.
    gateway_of: BTreeMap<ObjectKey, Group>,
    /// Apps in a crash loop, by pod.
    crash_loops: BTreeMap<ObjectKey, CrashLoop>,
    /// Pods whose group may be another one.
    placed: BTreeSet<ObjectKey>,
}

impl Fleets {
    /// All of them.
    pub fn all(&self) -> &BTreeMap<Group, Fleet> {
        &self.by_group
    }

    /// The group of a pod.
    pub fn group_of<'a>(&'a self, pod: &ObjectKey, translator: &'a Translator) -> Option<&'a Group> {
        self.gateway_of.get(pod).or_else(|| translator.group_of(pod))
    }

    /// Pods that may have changed their group since this was asked last.
    pub fn take_placed(&mut self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.placed)
    }

    /// Brings fleets up to date with pods and snapshots; gives those with other pods.
    pub fn update(&mut self, touched: &Touched, update: &Update, cache: &Cache, translator: &Translator) -> Moved {
        let mut moved = Moved::new();
        let mut pods: BTreeSet<&ObjectKey> = touched.proxy_pods.iter().collect();
        if touched.changes.all || !touched.changes.gateways.is_empty() {
            // Whether a pod is of a fleet depends on whether there is such a gateway.
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
        // Pods that were made otherwise than it seemed stay where they are.
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

    /// Notes whether an app of a sidecar's pod is in a crash loop; gives whether that is new.
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
        let (mut pods, mut ready) = (BTreeSet::new(), 0);
        for (pod, info) in stay {
            pods.insert(pod.clone());
            ready += usize::from(info.ready);
        }
        self.set(group, Fleet { pods, ready, ..Fleet::default() }, translator, moved);
    }

    fn sidecars(&mut self, group: &Group, cache: &Cache, translator: &Translator, moved: &mut Moved) {
        if let Some(pods) = translator.pods(group) {
            // One that is leaving runs what it ran until its app has ended, and nobody waits for it.
            let known = |key: &ObjectKey| cache.world.pods.get(key).filter(|pod| !pod.leaving);
            let stay: BTreeSet<ObjectKey> = pods.iter().filter(|pod| known(pod).is_some()).cloned().collect();
            let issue = |key: &ObjectKey| Some((key.clone(), PodIssue::of(known(key)?, self.crash_loops.get(key))?));
            let issues = stay.iter().filter_map(issue).collect();
            let next = Fleet { ready: stay.len(), pods: stay, issues, ..Fleet::default() };
            self.set(group.clone(), next, translator, moved);
        } else {
            self.by_group.remove(group);
        }
    }

    fn set(&mut self, group: Group, next: Fleet, translator: &Translator, moved: &mut Moved) {
        let snapshot = translator.snapshot(&group).cloned().unwrap_or_default();
        let old = self.by_group.get(&group);
        if old.is_some_and(|old| old.pods == next.pods && old.ready == next.ready && old.issues == next.issues) {
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
