//! Inputs that trigger the evaluation of a status.

use std::{collections::BTreeSet, time::Duration};

use crds::PortForward;
use proxy_api::Origin;

use super::{AGAIN, Statuses};
use crate::{
    status::fleets::{Moved, Pods},
    translate::{groups::Group, translator::Translator},
    world::{ObjectKey, proxy_id::ProxyId, subject::forward_of},
};

impl Statuses {
    /// Takes a new version of a forward from the cache; `None` if the forward is gone.
    pub fn seen(&mut self, key: &ObjectKey, forward: Option<&PortForward>, now: Duration) {
        let Some(forward) = forward else {
            self.entries.remove(key);
            self.waiting.remove(key);
            self.unready.set(key, None);
            self.counts.forget(key);
            return;
        };
        if let Some(entry) = self.entries.get_mut(key) {
            entry.shown(forward.metadata.resource_version.as_deref());
        }
        self.now.insert(key.clone());
        self.soon(now + AGAIN);
    }

    /// Records that the verdicts on these forwards changed.
    pub fn verdicts(&mut self, changed: BTreeSet<Origin>, now: Duration) {
        if changed.is_empty() {
            return;
        }
        for key in keys(changed) {
            self.entries.entry(key.clone()).or_default().published = None;
            self.now.insert(key);
        }
        self.soon(now);
    }

    /// Evaluates these forwards as soon as possible.
    pub fn look_at(&mut self, keys: BTreeSet<ObjectKey>, now: Duration) {
        if !keys.is_empty() {
            self.now.extend(keys);
            self.soon(now);
        }
    }

    /// Records that the pods of groups changed. A fleet that gains its first or loses its last ready proxy is written
    /// at once, counts at intervals.
    pub fn fleets(&mut self, moved: &Moved, translator: &Translator, now: Duration) {
        for (group, pods) in moved {
            match pods {
                Pods::Other => keys(translator.forwards(group)).for_each(|key| self.outdate(key)),
                Pods::AnyReady => self.now.extend(keys(translator.forwards(group))),
            }
            self.soon(now + AGAIN);
        }
    }

    /// Records that these pods changed or are gone: no forward needs to wait for a pod that is gone.
    pub fn pods<'a>(&mut self, pods: impl IntoIterator<Item = &'a ObjectKey>, now: Duration) {
        for pod in pods {
            self.now.extend(self.waiting.on(&ProxyId::Pod(pod.clone())).cloned());
        }
        if !self.now.is_empty() {
            self.soon(now + AGAIN);
        }
    }

    /// Records a report of a proxy of this group, in which these forwards changed their state. `whole` says that the
    /// report is complete, so the forwards that waited for this proxy are evaluated, too. The cost does not depend on
    /// the number of other waiting forwards.
    pub fn reported(
        &mut self,
        (proxy, group): (&ProxyId, Option<&Group>),
        forwards: BTreeSet<ObjectKey>,
        whole: bool,
        now: Duration,
    ) {
        self.now.extend(forwards);
        if whole {
            self.now.extend(self.waiting.on(proxy).cloned());
            self.reporting.extend(group.filter(|group| self.waiting.in_group(group).next().is_some()).cloned());
        }
        if !self.now.is_empty() {
            self.soon(now + AGAIN);
        }
    }
}

/// The `PortForward`s among origins.
fn keys(origins: impl IntoIterator<Item = Origin>) -> impl Iterator<Item = ObjectKey> {
    origins.into_iter().filter_map(|origin| forward_of(&origin))
}
