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

/// A change to the pods of a group.
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
    /// The pods of gateways' fleets, terminating pods included.
    of_gateways: BTreeMap<ObjectKey, Seat>,
    /// The pods of sidecar groups, terminating pods included.
    of_sidecars: BTreeMap<ObjectKey, Seat>,
    /// Apps in a crash loop, by pod.
    crash_loops: BTreeMap<ObjectKey, CrashLoop>,
    /// Pods whose group may have changed.
    placed: BTreeSet<ObjectKey>,
}

/// The contribution of a pod to the fleet of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seat {
    group: Group,
    /// Whether the pod is not terminating. A terminating pod contributes nothing: its proxy runs its last configuration
    /// until the app has ended, and no status waits for that proxy.
    stays: bool,
    ready: bool,
    issue: Option<PodIssue>,
}

impl Seat {
    fn is_uninjected(&self) -> bool {
        self.issue.as_ref().is_some_and(|issue| !issue.injected)
    }
}

/// The groups that an update changed, as they were before.
type Before = BTreeMap<Group, Urgent>;

/// The facts whose change is urgent: whether a pod is ready, whether there are no issues, and whether a pod has no
/// proxy.
type Urgent = (bool, bool, bool);

impl Fleets {
    /// The fleets by group.
    pub fn all(&self) -> &BTreeMap<Group, Fleet> {
        &self.by_group
    }

    /// Returns the group of a pod.
    pub fn group_of<'a>(&'a self, pod: &ObjectKey, translator: &'a Translator) -> Option<&'a Group> {
        self.of_gateways.get(pod).map(|seat| &seat.group).or_else(|| translator.group_of(pod))
    }

    /// Takes the pods whose group may have changed since the last call.
    pub fn take_placed(&mut self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.placed)
    }

    /// Updates the fleets from pods and snapshots; returns the groups whose pods changed. The work follows the number of
    /// pods that changed, and of the pods of gateways that changed.
    pub fn update(&mut self, touched: &Touched, update: &Update, cache: &Cache, translator: &Translator) -> Moved {
        let mut before = Before::new();
        self.gateways(touched, cache, translator, &mut before);
        let mut sidecars: BTreeSet<&ObjectKey> = touched.changes.pods.union(&update.placed).collect();
        for pod in proxy_pods(touched, cache) {
            if self.note_crash_loop(pod, cache) {
                sidecars.insert(pod);
            }
            self.seat_in_gateway(pod, cache, translator, &mut before);
            self.placed.insert(pod.clone());
        }
        if touched.changes.all {
            sidecars.extend(cache.world.pods.keys());
        }
        for pod in sidecars {
            self.seat_in_sidecars(pod, cache, translator, &mut before);
        }
        self.placed.extend(touched.changes.pods.union(&update.placed).cloned());
        for group in &update.programs {
            if let (Some(fleet), Some(snapshot)) = (self.by_group.get_mut(group), translator.snapshot(group)) {
                fleet.snapshot = snapshot.clone();
            }
        }
        self.moved(before, translator)
    }

    /// Opens the fleets of new gateways, which exist even without pods, and drops those of deleted ones.
    fn gateways(&mut self, touched: &Touched, cache: &Cache, translator: &Translator, before: &mut Before) {
        let known = &cache.world.gateways;
        let all = touched.changes.all.then(|| known.keys()).into_iter().flatten();
        for key in touched.changes.gateways.iter().chain(all) {
            let group = Group::Gateway(key.clone());
            if !known.contains_key(key) {
                self.by_group.remove(&group);
            } else if !self.by_group.contains_key(&group) {
                self.change(&group, translator, before);
            }
        }
    }

    fn seat_in_gateway(&mut self, pod: &ObjectKey, cache: &Cache, translator: &Translator, before: &mut Before) {
        let seat = cache.proxy_pods.get(pod).zip(cache.gateway_of(pod)).map(|(info, gateway)| Seat {
            group: Group::Gateway(gateway),
            // A drainer contributes nothing either, because it serves nothing.
            stays: !info.leaving && info.drains.is_none(),
            ready: info.ready,
            issue: None,
        });
        let old = match seat.clone() {
            Some(seat) => self.of_gateways.insert(pod.clone(), seat),
            None => self.of_gateways.remove(pod),
        };
        self.exchange(pod, old, seat, translator, before);
    }

    fn seat_in_sidecars(&mut self, pod: &ObjectKey, cache: &Cache, translator: &Translator, before: &mut Before) {
        let known = cache.world.pods.get(pod);
        let issue = known.and_then(|known| PodIssue::of(known, self.crash_loops.get(pod)));
        let stays = known.is_some_and(|known| !known.leaving);
        let seat = translator.group_of(pod).map(|group| Seat { group: group.clone(), stays, ready: true, issue });
        let old = match seat.clone() {
            Some(seat) => self.of_sidecars.insert(pod.clone(), seat),
            None => self.of_sidecars.remove(pod),
        };
        self.exchange(pod, old, seat, translator, before);
    }

    /// Replaces the contribution of a pod to its group.
    fn exchange(
        &mut self,
        pod: &ObjectKey,
        old: Option<Seat>,
        new: Option<Seat>,
        translator: &Translator,
        before: &mut Before,
    ) {
        if old == new {
            return;
        }
        let proxy = ProxyId::Pod(pod.clone());
        if let Some(seat) = old {
            self.leave(&proxy, &seat, translator, before);
        }
        if let Some(seat) = new {
            self.join(proxy, seat, translator, before);
        }
    }

    fn leave(&mut self, proxy: &ProxyId, seat: &Seat, translator: &Translator, before: &mut Before) {
        // The fleet of a deleted gateway is gone already.
        if !self.by_group.contains_key(&seat.group) {
            return;
        }
        if !seat.stays {
            // The last pod of the group may have been a terminating one.
            if is_gone(&seat.group, translator) {
                self.by_group.remove(&seat.group);
            }
            return;
        }
        let fleet = self.change(&seat.group, translator, before);
        fleet.members.remove(proxy);
        fleet.ready = fleet.ready.saturating_sub(seat.ready.into());
        fleet.issues.remove(proxy);
        fleet.uninjected = fleet.uninjected.saturating_sub(seat.is_uninjected().into());
    }

    fn join(&mut self, proxy: ProxyId, seat: Seat, translator: &Translator, before: &mut Before) {
        if !seat.stays && self.by_group.contains_key(&seat.group) {
            return;
        }
        let fleet = self.change(&seat.group, translator, before);
        if !seat.stays {
            return;
        }
        fleet.ready += usize::from(seat.ready);
        fleet.uninjected += usize::from(seat.is_uninjected());
        fleet.members.insert(proxy.clone());
        fleet.issues.extend(seat.issue.map(|issue| (proxy, issue)));
    }

    /// The fleet of a group that is about to change.
    fn change(&mut self, group: &Group, translator: &Translator, before: &mut Before) -> &mut Fleet {
        let fleet = self.by_group.entry(group.clone()).or_insert_with(|| Fleet {
            snapshot: translator.snapshot(group).cloned().unwrap_or_default(),
            ..Fleet::default()
        });
        before.entry(group.clone()).or_insert_with(|| urgent(fleet));
        fleet
    }

    /// Returns how the changed groups changed. Forgets groups without pods.
    fn moved(&mut self, before: Before, translator: &Translator) -> Moved {
        let mut moved = Moved::new();
        for (group, before) in before {
            if is_gone(&group, translator) {
                self.by_group.remove(&group);
                continue;
            }
            let Some(fleet) = self.by_group.get(&group) else { continue };
            let pods = if urgent(fleet) == before { Pods::Other } else { Pods::AnyReady };
            moved.insert(group, pods);
        }
        moved
    }

    /// Records the crash loop of a sidecar pod's app; returns whether it changed.
    fn note_crash_loop(&mut self, pod: &ObjectKey, cache: &Cache) -> bool {
        let info = cache.proxy_pods.get(pod).filter(|info| info.gateway.is_none() && info.drains.is_none());
        let now = info.and_then(|info| info.crash_loop.clone());
        let before = match now.clone() {
            Some(crash_loop) => self.crash_loops.insert(pod.clone(), crash_loop),
            None => self.crash_loops.remove(pod),
        };
        before != now
    }
}

/// Whether a sidecar group has no pods left.
fn is_gone(group: &Group, translator: &Translator) -> bool {
    group.sidecars().is_some() && translator.pods(group).is_none()
}

/// The pods with a proxy that changed, or whose gateway did: a pod belongs to a fleet only while the gateway exists.
fn proxy_pods<'a>(touched: &'a Touched, cache: &'a Cache) -> BTreeSet<&'a ObjectKey> {
    let mut pods: BTreeSet<&ObjectKey> = touched.proxy_pods.iter().collect();
    if touched.changes.all {
        pods.extend(cache.proxy_pods.keys());
        return pods;
    }
    for gateway in &touched.changes.gateways {
        let first = ObjectKey::new(gateway.namespace.clone(), "");
        let here = cache.proxy_pods.range(first..).take_while(|(pod, _)| pod.namespace == gateway.namespace);
        let name = Some(&gateway.name);
        let its = here.filter(move |(_, info)| info.gateway.as_ref() == name || info.drains.as_ref() == name);
        pods.extend(its.map(|(pod, _)| pod));
    }
    pods
}

fn urgent(fleet: &Fleet) -> Urgent {
    (fleet.ready > 0, fleet.issues.is_empty(), fleet.uninjected > 0)
}
