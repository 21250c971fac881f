//! Which pods run what: the fleets of gateways by the pods that carry a proxy, those of sidecars by the translation.

use std::collections::{BTreeMap, BTreeSet};

use crds::Selector;
use operator_core::{Failing, Fleet, Group, ObjectKey, Remark, ShortRuns, Translator, Update};

use crate::cache::{Cache, Touched};

/// What became of the pods of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pods {
    /// They are others.
    Other,
    /// There is now a ready one, or none any more; or one of which there is something to say.
    AnyReady,
}

/// Groups with something new.
pub(super) type Moved = BTreeMap<Group, Pods>;

type Labels = BTreeMap<String, String>;

/// The fleets of one term.
#[derive(Debug, Default)]
pub(super) struct Fleets {
    by_group: BTreeMap<Group, Fleet>,
    /// The gateway's group of each pod that is in its fleet, leaving or not.
    gateway_of: BTreeMap<ObjectKey, Group>,
    /// Apps that ended soon after their start.
    short_runs: ShortRuns,
    /// Pods that ended with such an app, with their labels.
    failed: BTreeMap<ObjectKey, Labels>,
    /// Labels of pods that were not in `failed` before, or are no more; by namespace.
    failed_anew: Vec<(String, Labels)>,
    /// Pods whose group may be another one.
    placed: BTreeSet<ObjectKey>,
}

impl Fleets {
    /// All of them.
    pub(super) fn all(&self) -> &BTreeMap<Group, Fleet> {
        &self.by_group
    }

    /// The group of a pod. While its app is left all ports, it is of none.
    pub(super) fn group_of<'a>(&'a self, pod: &ObjectKey, translator: &'a Translator) -> Option<&'a Group> {
        let is_left_all_ports = self.short_runs.failing(pod).is_some_and(|failing| failing.left_all_ports);
        self.gateway_of.get(pod).or_else(|| translator.group_of(pod).filter(|_| !is_left_all_ports))
    }

    /// Pods whose apps are to be looked at again, as time has passed.
    pub(super) fn due(&self, now: i64) -> impl Iterator<Item = &ObjectKey> {
        self.short_runs.due(now)
    }

    /// Pods of a namespace that ended with their app, as far as they are selected.
    pub(super) fn failed<'a>(
        &'a self,
        namespace: &'a str,
        selector: &'a Selector,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a Failing)> {
        let first = ObjectKey::new(namespace, "");
        let here = self.failed.range(first..).take_while(move |(pod, _)| pod.namespace == namespace);
        let selected = here.filter(|(_, labels)| selector.matches(labels));
        selected.filter_map(|(pod, _)| Some((pod, self.short_runs.failing(pod)?)))
    }

    /// Namespaces and labels of pods that ended so, or are no longer told of, since this was asked last.
    pub(super) fn take_failed_anew(&mut self) -> Vec<(String, Labels)> {
        std::mem::take(&mut self.failed_anew)
    }

    /// Pods that may have changed their group since this was asked last.
    pub(super) fn take_placed(&mut self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.placed)
    }

    /// Brings fleets up to date with pods and snapshots; gives those with other pods. `now` is in seconds of Unix time.
    pub(super) fn update(
        &mut self,
        touched: &Touched,
        update: &Update,
        cache: &Cache,
        translator: &Translator,
        now: i64,
    ) -> Moved {
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
        let mut remarked: BTreeSet<&ObjectKey> = touched.changes.pods.iter().collect();
        for pod in pods {
            if self.note_short_runs(pod, cache, now) {
                remarked.insert(pod);
            }
            let group = cache.gateway_of(pod);
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
        let remarked: BTreeSet<&Group> = remarked.into_iter().filter_map(|pod| translator.group_of(pod)).collect();
        for group in update.pods.iter().chain(remarked.into_iter().filter(|group| !update.pods.contains(*group))) {
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

    /// Notes how the apps of a pod ended; whether there is anything else to say of it than before.
    fn note_short_runs(&mut self, pod: &ObjectKey, cache: &Cache, now: i64) -> bool {
        let info = cache.proxy_pods.get(pod).filter(|info| info.gateway.is_none());
        let runs = info.map(|info| info.short_runs.as_slice()).unwrap_or_default();
        if !self.short_runs.note(pod, runs, now) {
            return false;
        }
        let labels = info.map(|info| info.labels.clone());
        let is_last = self.short_runs.failing(pod).is_some_and(|failing| failing.is_last);
        let anew = match labels.filter(|_| is_last) {
            Some(labels) => self.failed.insert(pod.clone(), labels.clone()).is_none().then_some(labels),
            None => self.failed.remove(pod),
        };
        self.failed_anew.extend(anew.map(|labels| (pod.namespace.clone(), labels)));
        true
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
            // Those that ended with their app are told of by themselves.
            let failing = |key: &ObjectKey| self.short_runs.failing(key).filter(|failing| !failing.is_last);
            let remark = |key: &ObjectKey| Some((key.clone(), Remark::of(known(key)?, failing(key))?));
            let remarks = stay.iter().filter_map(remark).collect();
            let next = Fleet { ready: stay.len(), pods: stay, remarks, ..Fleet::default() };
            self.set(group.clone(), next, translator, moved);
        } else {
            self.by_group.remove(group);
        }
    }

    fn set(&mut self, group: Group, next: Fleet, translator: &Translator, moved: &mut Moved) {
        let snapshot = translator.snapshot(&group).cloned().unwrap_or_default();
        let old = self.by_group.get(&group);
        if old.is_some_and(|old| old.pods == next.pods && old.ready == next.ready && old.remarks == next.remarks) {
            return;
        }
        let is_known = |fleet: &Fleet| {
            let bare = fleet.remarks.values().any(|remark| !remark.carries);
            (fleet.ready > 0, fleet.remarks.is_empty(), bare)
        };
        let is_other = old.map_or((false, true, false), is_known) != is_known(&next);
        moved.insert(group.clone(), if is_other { Pods::AnyReady } else { Pods::Other });
        self.by_group.insert(group, Fleet { snapshot, ..next });
    }
}
