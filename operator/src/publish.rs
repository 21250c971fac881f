//! From translations to snapshots, and from snapshots to what each proxy is sent.

mod deltas;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use operator_core::{Group, ObjectKey, Snapshot, Translation, keep_last_good};
use proxy_api::{Configuration, Version};
use tokio::sync::watch;

pub use self::deltas::Deltas;
pub(crate) use self::deltas::encode;

/// What a proxy is to run, as its stream sees it.
pub type Target = watch::Receiver<Arc<Snapshot>>;

/// The snapshots of one term of leadership. Numbers are never used twice in it.
#[derive(Debug)]
pub struct Publisher {
    epoch: String,
    number: u64,
    snapshots: BTreeMap<Group, Arc<Snapshot>>,
    /// What proxies of no group run: nothing.
    empty: Arc<Snapshot>,
    streams: BTreeMap<ObjectKey, Stream>,
}

#[derive(Debug)]
struct Stream {
    id: u64,
    target: watch::Sender<Arc<Snapshot>>,
}

impl Publisher {
    /// For one term.
    #[must_use]
    pub fn new(epoch: String) -> Self {
        let version = Version { epoch: epoch.clone(), number: 1 };
        let empty = Snapshot::next(None, Configuration::default(), &version).unwrap_or_default();
        let (snapshots, streams) = (BTreeMap::new(), BTreeMap::new());
        Self { epoch, number: 1, snapshots, empty: Arc::new(empty), streams }
    }

    fn version(&mut self) -> Version {
        self.number += 1;
        Version { epoch: self.epoch.clone(), number: self.number }
    }

    /// Takes a translation; gives how many groups have something new. What is refused as a mistake goes on as before.
    pub fn update(&mut self, translation: &mut Translation) -> usize {
        let mut changed = 0;
        let configurations = std::mem::take(&mut translation.configurations);
        self.snapshots.retain(|group, _| configurations.contains_key(group));
        for (group, mut configuration) in configurations {
            let previous = self.snapshots.get(&group).cloned();
            if let Some(previous) = &previous {
                keep_last_good(&previous.configuration, &mut configuration, &translation.verdicts);
            }
            let version = Version { epoch: self.epoch.clone(), number: self.number + 1 };
            if let Some(next) = Snapshot::next(previous.as_deref(), configuration, &version) {
                self.number += 1;
                changed += 1;
                self.snapshots.insert(group, Arc::new(next));
            }
        }
        changed
    }

    /// The snapshot of a group.
    #[must_use]
    pub fn snapshot(&self, group: Option<&Group>) -> Arc<Snapshot> {
        group.and_then(|group| self.snapshots.get(group)).unwrap_or(&self.empty).clone()
    }

    /// A pod opened a stream; an older one of the same pod ends.
    pub fn connect(&mut self, pod: &ObjectKey, id: u64, group: Option<&Group>) -> Target {
        let (target, receiver) = watch::channel(self.snapshot(group));
        self.streams.insert(pod.clone(), Stream { id, target });
        receiver
    }

    /// A stream ended; whether it was the pod's newest one.
    pub fn disconnect(&mut self, pod: &ObjectKey, id: u64) -> bool {
        let is_newest = self.streams.get(pod).is_some_and(|stream| stream.id == id);
        if is_newest {
            self.streams.remove(pod);
        }
        is_newest
    }

    /// Ends the stream of a pod.
    pub fn remove(&mut self, pod: &ObjectKey) {
        self.streams.remove(pod);
    }

    /// Whether this is the newest stream of the pod.
    #[must_use]
    pub fn is_newest(&self, pod: &ObjectKey, id: u64) -> bool {
        self.streams.get(pod).is_some_and(|stream| stream.id == id)
    }

    /// Pods with a stream.
    #[must_use]
    pub fn connected(&self) -> BTreeSet<ObjectKey> {
        self.streams.keys().cloned().collect()
    }

    /// Tells every stream what its pod is to run now. A stream whose pod may not have one any more ends.
    pub fn tell(&mut self, group_of: impl Fn(&ObjectKey) -> Option<Group>) {
        let wanted: Vec<(ObjectKey, Option<Group>, u64)> = self
            .streams
            .iter()
            .map(|(pod, stream)| (pod.clone(), group_of(pod), stream.target.borrow().configuration.version.number))
            .collect();
        for (pod, group, has) in wanted {
            let mut next = self.snapshot(group.as_ref());
            if next.configuration.version.number < has {
                // A pod came from another group: within a term the order only goes up.
                next = self.renumber(group.as_ref());
            }
            if let Some(stream) = self.streams.get(&pod) {
                stream.target.send_if_modified(|now| {
                    let modified = !Arc::ptr_eq(now, &next);
                    *now = next.clone();
                    modified
                });
            }
        }
    }

    fn renumber(&mut self, group: Option<&Group>) -> Arc<Snapshot> {
        let version = self.version();
        let mut next = (*self.snapshot(group)).clone();
        next.configuration.version = version;
        let next = Arc::new(next);
        match group {
            Some(group) if self.snapshots.contains_key(group) => {
                drop(self.snapshots.insert(group.clone(), next.clone()));
            }
            _ => self.empty = next.clone(),
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> ObjectKey {
        ObjectKey::new("ns", name)
    }

    fn group(name: &str) -> Group {
        Group::Gateway(pod(name))
    }

    fn translation(groups: &[(&str, u16)]) -> Translation {
        let listener = |port: u16| {
            let text = format!(
                "listeners: {{ns/f/l: {{revision: 'r{port}', socket: {{transport: TCP, bind: All, port: {port}}}, backends: [], \
                 policy: Random, outlier: {{consecutiveFailures: 1, ejectSeconds: 1}}, timeouts: {{connectSeconds: 5, \
                 idleSeconds: 3600, halfCloseSeconds: 300, udpIdleSeconds: 60, keepaliveSeconds: 60}}, retry: {{attempts: 3, \
                 initialBackoffMillis: 50, maxBackoffMillis: 2000}}, sessions: {{onUpdate: Keep, onUnhealthy: Keep, \
                 drainSeconds: 300}}, accessLog: {{mode: Close, intervalSeconds: 0}}, destinations: {{refuseLocal: false, \
                 cidrs: []}}}}}}"
            );
            Configuration::decode(text.as_bytes()).expect("configuration")
        };
        let configurations = groups.iter().map(|(name, port)| (group(name), listener(*port))).collect();
        Translation { configurations, ..Translation::default() }
    }

    #[test]
    fn only_groups_that_run_something_else_get_a_snapshot() {
        let mut publisher = Publisher::new("term".to_owned());
        assert_eq!(publisher.update(&mut translation(&[("a", 1), ("b", 2)])), 2);
        let before = publisher.snapshot(Some(&group("b")));
        assert_eq!(publisher.update(&mut translation(&[("a", 3), ("b", 2)])), 1);
        assert!(Arc::ptr_eq(&before, &publisher.snapshot(Some(&group("b")))));
    }

    #[test]
    fn a_pod_that_changes_its_group_is_never_sent_a_smaller_number() {
        let mut publisher = Publisher::new("term".to_owned());
        publisher.update(&mut translation(&[("a", 1), ("b", 2)]));
        publisher.update(&mut translation(&[("a", 1), ("b", 3)]));
        let target = publisher.connect(&pod("p"), 1, Some(&group("b")));
        let number = |target: &Target| target.borrow().configuration.version.number;
        let had = number(&target);
        publisher.tell(|_| Some(group("a")));
        assert!(number(&target) > had);
        assert_eq!(target.borrow().configuration.listeners.len(), 1);
        let had = number(&target);
        publisher.tell(|_| None);
        assert!(number(&target) > had && target.borrow().configuration.listeners.is_empty());
    }

    #[test]
    fn a_second_stream_of_a_pod_replaces_the_first() {
        let mut publisher = Publisher::new("term".to_owned());
        let first = publisher.connect(&pod("p"), 1, None);
        let second = publisher.connect(&pod("p"), 2, None);
        assert!(first.has_changed().is_err(), "its sender is gone");
        assert!(!publisher.disconnect(&pod("p"), 1), "the newer one stays");
        assert!(second.has_changed().is_ok() && publisher.is_newest(&pod("p"), 2));
    }
}
