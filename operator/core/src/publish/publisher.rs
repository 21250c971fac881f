//! The snapshot that each proxy should run: that of its group, under version numbers that only grow for a pod.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proxy_api::Version;

use crate::{
    status::proxies::Proxies,
    translate::{groups::Group, program::Snapshot},
    world::proxy_id::ProxyId,
};

/// The snapshots of one term, and the streams that follow them. No version number is used twice within a term.
#[derive(Debug)]
pub struct Publisher {
    epoch: String,
    number: u64,
    snapshots: BTreeMap<Group, Arc<Snapshot>>,
    /// The empty snapshot, for proxies of no group.
    empty: Arc<Snapshot>,
    streams: BTreeMap<ProxyId, Stream>,
    /// Streams by the group that they follow.
    followers: BTreeMap<Group, BTreeSet<ProxyId>>,
    /// The last version number that was sent to each pod without a stream. A pod keeps its number, and accepts no
    /// smaller one.
    had: BTreeMap<ProxyId, u64>,
}

#[derive(Debug)]
struct Stream {
    id: u64,
    group: Option<Group>,
    /// The snapshot that the stream leads to.
    target: Arc<Snapshot>,
}

/// A change to the stream of a proxy.
#[derive(Clone, Debug)]
pub enum Step {
    /// The stream leads to this snapshot from now on.
    Lead(ProxyId, Arc<Snapshot>),
    /// The stream ends.
    End(ProxyId),
}

impl Publisher {
    /// A publisher for the term of this name.
    #[must_use]
    pub fn new(epoch: String) -> Self {
        let empty = Arc::new(Snapshot::empty(Version { epoch: epoch.clone(), number: 1 }));
        let (snapshots, streams) = (BTreeMap::new(), BTreeMap::new());
        Self { epoch, number: 1, snapshots, empty, streams, followers: BTreeMap::new(), had: BTreeMap::new() }
    }

    /// Allocates the version of the next snapshots.
    pub fn next_version(&mut self) -> Version {
        self.number += 1;
        Version { epoch: self.epoch.clone(), number: self.number }
    }

    /// Sets the snapshot of a group, or removes the group, and leads the streams of the group there.
    pub fn publish(&mut self, group: &Group, snapshot: Option<Arc<Snapshot>>, steps: &mut Vec<Step>) {
        match snapshot {
            Some(snapshot) => drop(self.snapshots.insert(group.clone(), snapshot)),
            None => drop(self.snapshots.remove(group)),
        }
        for proxy in self.followers.get(group).cloned().unwrap_or_default() {
            self.lead(&proxy, steps);
        }
    }

    /// The snapshot of a group; the empty one for a group without a snapshot, and without a group.
    #[must_use]
    pub fn snapshot(&self, group: Option<&Group>) -> Arc<Snapshot> {
        group.and_then(|group| self.snapshots.get(group)).unwrap_or(&self.empty).clone()
    }

    /// Opens the stream of a pod, in place of an older stream of the same pod. Returns where the stream begins.
    pub fn connect(&mut self, proxy: &ProxyId, id: u64, group: Option<&Group>) -> Arc<Snapshot> {
        self.take(proxy);
        let mut snapshot = self.snapshot(group);
        if self.had.remove(proxy).is_some_and(|had| snapshot.version.number < had) {
            snapshot = self.renumber(group);
        }
        let stream = Stream { id, group: group.cloned(), target: snapshot.clone() };
        self.streams.insert(proxy.clone(), stream);
        self.follow(proxy, group);
        snapshot
    }

    /// The pods whose streams follow a group, terminating pods included.
    pub fn followers(&self, group: &Group) -> impl Iterator<Item = &ProxyId> {
        self.followers.get(group).into_iter().flatten()
    }

    /// The snapshot that the stream of a pod leads to; `None` without a stream.
    #[must_use]
    pub fn target(&self, proxy: &ProxyId) -> Option<Arc<Snapshot>> {
        Some(self.streams.get(proxy)?.target.clone())
    }

    fn follow(&mut self, proxy: &ProxyId, group: Option<&Group>) {
        if let Some(group) = group {
            self.followers.entry(group.clone()).or_default().insert(proxy.clone());
        }
    }

    fn unfollow(&mut self, proxy: &ProxyId, group: Option<&Group>) {
        let Some(group) = group else { return };
        if let Some(pods) = self.followers.get_mut(group) {
            pods.remove(proxy);
            if pods.is_empty() {
                self.followers.remove(group);
            }
        }
    }

    /// Moves a pod to this group and leads its stream there. Returns whether the stream followed another group before.
    pub fn place(&mut self, proxy: &ProxyId, group: Option<&Group>, steps: &mut Vec<Step>) -> bool {
        let Some(stream) = self.streams.get_mut(proxy).filter(|stream| stream.group.as_ref() != group) else {
            return false;
        };
        let old = std::mem::replace(&mut stream.group, group.cloned());
        self.unfollow(proxy, old.as_ref());
        self.follow(proxy, group);
        self.lead(proxy, steps);
        true
    }

    /// Removes a stream that ended. Returns whether this was the pod's newest stream; an older one is ignored.
    pub fn disconnect(&mut self, proxy: &ProxyId, id: u64, steps: &mut Vec<Step>) -> bool {
        let is_newest = self.is_newest(proxy, id);
        if is_newest {
            self.remove(proxy, steps);
        }
        is_newest
    }

    /// Ends the stream of a pod.
    pub fn remove(&mut self, proxy: &ProxyId, steps: &mut Vec<Step>) {
        if self.take(proxy) {
            steps.push(Step::End(proxy.clone()));
        }
    }

    /// Ends the stream of a pod that is gone, and forgets its number.
    pub fn forget(&mut self, proxy: &ProxyId, steps: &mut Vec<Step>) {
        self.remove(proxy, steps);
        self.had.remove(proxy);
    }

    /// Takes the stream of a pod out, and keeps its number. Returns whether there was one.
    fn take(&mut self, proxy: &ProxyId) -> bool {
        let Some(stream) = self.streams.remove(proxy) else { return false };
        self.had.insert(proxy.clone(), stream.target.version.number);
        self.unfollow(proxy, stream.group.as_ref());
        true
    }

    /// Whether this is the newest stream of the pod.
    #[must_use]
    pub fn is_newest(&self, proxy: &ProxyId, id: u64) -> bool {
        self.streams.get(proxy).is_some_and(|stream| stream.id == id)
    }

    /// Whether more than a tenth of all proxies have not acked their last snapshot, so that waiting for them pays.
    #[must_use]
    pub fn is_behind(&self, proxies: &Proxies) -> bool {
        let is_behind = |(proxy, stream): &(&ProxyId, &Stream)| {
            proxies.get(proxy).is_none_or(|state| state.applied < stream.target.version.number)
        };
        let behind = self.streams.iter().filter(is_behind).count();
        behind * 10 > self.streams.len()
    }

    /// Leads a stream to the snapshot that its pod should run now.
    fn lead(&mut self, proxy: &ProxyId, steps: &mut Vec<Step>) {
        let Some(stream) = self.streams.get(proxy) else { return };
        let group = stream.group.clone();
        let has = stream.target.version.number;
        let mut next = self.snapshot(group.as_ref());
        if next.version.number < has {
            // The pod came from another group: within a term, numbers only grow.
            next = self.renumber(group.as_ref());
        }
        if let Some(stream) = self.streams.get_mut(proxy).filter(|stream| !Arc::ptr_eq(&stream.target, &next)) {
            stream.target = next.clone();
            steps.push(Step::Lead(proxy.clone(), next));
        }
    }

    fn renumber(&mut self, group: Option<&Group>) -> Arc<Snapshot> {
        let version = self.next_version();
        let next = Arc::new(Snapshot { version, ..(*self.snapshot(group)).clone() });
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
    use proxy_api::ReportPart;

    use super::*;
    use crate::world::ObjectKey;

    fn pod(name: &str) -> ProxyId {
        ProxyId::Pod(ObjectKey::new("ns", name))
    }

    fn group(name: &str) -> Group {
        Group::Gateway(ObjectKey::new("ns", name))
    }

    fn snapshot(number: u64) -> Arc<Snapshot> {
        Arc::new(Snapshot::empty(Version { epoch: "term".to_owned(), number }))
    }

    /// A publisher with the snapshots of these groups, under the numbers from 2.
    fn published(groups: &[&str]) -> Publisher {
        let mut publisher = Publisher::new("term".to_owned());
        for name in groups {
            let version = publisher.next_version();
            publisher.publish(&group(name), Some(snapshot(version.number)), &mut Vec::new());
        }
        publisher
    }

    /// The steps as text: the name of the pod, and the number that its stream leads to.
    fn told(steps: &[Step]) -> Vec<String> {
        let name = |step: &Step| match step {
            Step::Lead(proxy, to) => format!("{} to {}", proxy.name(), to.version.number),
            Step::End(proxy) => format!("{} ends", proxy.name()),
        };
        steps.iter().map(name).collect()
    }

    #[test]
    fn only_streams_of_a_group_are_led_to_its_snapshot() {
        let (mut publisher, mut steps) = (published(&[]), Vec::new());
        for name in ["a", "b"] {
            assert_eq!(publisher.connect(&pod(name), 1, Some(&group(name))).version.number, 1, "the empty snapshot");
        }
        let next = snapshot(publisher.next_version().number);
        publisher.publish(&group("a"), Some(next.clone()), &mut steps);
        publisher.publish(&group("a"), Some(next), &mut steps);
        assert_eq!(told(&steps), ["a to 2"], "a stream is led to a snapshot once");
        publisher.remove(&pod("a"), &mut steps);
        publisher.remove(&pod("a"), &mut steps);
        assert_eq!(told(&steps), ["a to 2", "a ends"], "a stream ends once");
        assert!(publisher.target(&pod("a")).is_none() && publisher.target(&pod("b")).is_some());
        assert_eq!(publisher.followers(&group("b")).collect::<Vec<_>>(), [&pod("b")]);
        assert_eq!(publisher.followers(&group("a")).count(), 0);
    }

    #[test]
    fn a_pod_that_changes_its_group_is_never_sent_a_smaller_number() {
        let (mut publisher, mut steps) = (published(&["a", "b"]), Vec::new());
        assert_eq!(publisher.connect(&pod("p"), 1, Some(&group("b"))).version.number, 3);
        assert!(publisher.place(&pod("p"), Some(&group("a")), &mut steps));
        assert!(!publisher.place(&pod("p"), Some(&group("a")), &mut steps), "it is there already");
        assert!(publisher.place(&pod("p"), None, &mut steps));
        assert_eq!(told(&steps), ["p to 4", "p to 5"]);
        assert!(publisher.target(&pod("p")).is_some_and(|target| target.listeners.is_empty()));
        assert!(!publisher.place(&pod("other"), Some(&group("a")), &mut steps), "it has no stream");
    }

    #[test]
    fn a_pod_that_moves_between_groups_without_snapshots_is_told_nothing() {
        let (mut publisher, mut steps) = (published(&[]), Vec::new());
        publisher.connect(&pod("p"), 1, Some(&group("a")));
        assert!(publisher.place(&pod("p"), Some(&group("b")), &mut steps));
        assert_eq!(told(&steps), Vec::<String>::new(), "it has the empty snapshot already");
        publisher.publish(&group("a"), Some(snapshot(2)), &mut steps);
        publisher.publish(&group("b"), Some(snapshot(3)), &mut steps);
        assert_eq!(told(&steps), ["p to 3"], "it follows its new group only");
    }

    #[test]
    fn a_pod_that_comes_back_to_a_smaller_number_takes_it() {
        let (mut publisher, mut steps) = (published(&["a", "b"]), Vec::new());
        let had = publisher.connect(&pod("p"), 1, Some(&group("b"))).version.number;
        publisher.remove(&pod("p"), &mut steps);
        for at in [Some(group("a")), None] {
            assert!(publisher.connect(&pod("p"), 2, at.as_ref()).version.number > had, "{at:?}");
        }
        publisher.forget(&pod("p"), &mut steps);
        assert!(publisher.had.is_empty());
        assert_eq!(told(&steps), ["p ends", "p ends"]);
    }

    #[test]
    fn a_pod_that_comes_back_to_the_snapshot_that_it_had_keeps_its_number() {
        let (mut publisher, mut steps) = (published(&["a"]), Vec::new());
        let had = publisher.connect(&pod("p"), 1, Some(&group("a"))).version.number;
        publisher.remove(&pod("p"), &mut steps);
        assert_eq!(publisher.connect(&pod("p"), 2, Some(&group("a"))).version.number, had);
    }

    #[test]
    fn pods_of_groups_that_are_gone_share_the_empty_snapshot() {
        let (mut publisher, mut steps) = (published(&["a", "b"]), Vec::new());
        for name in ["a", "b"] {
            publisher.connect(&pod(name), 1, Some(&group(name)));
        }
        for name in ["a", "b"] {
            publisher.publish(&group(name), None, &mut steps);
        }
        assert_eq!(told(&steps), ["a to 4", "b to 4"]);
    }

    #[test]
    fn a_second_stream_of_a_pod_replaces_the_first() {
        let (mut publisher, mut steps) = (published(&[]), Vec::new());
        publisher.connect(&pod("p"), 1, Some(&group("a")));
        publisher.connect(&pod("p"), 2, Some(&group("b")));
        assert!(!publisher.disconnect(&pod("p"), 1, &mut steps), "the second stream stays");
        assert!(steps.is_empty() && publisher.is_newest(&pod("p"), 2) && !publisher.is_newest(&pod("p"), 1));
        assert_eq!(publisher.followers(&group("a")).count(), 0);
        assert!(publisher.disconnect(&pod("p"), 2, &mut steps));
        assert_eq!(told(&steps), ["p ends"]);
        assert!(!publisher.disconnect(&pod("p"), 2, &mut steps), "it has ended already");
    }

    #[test]
    fn proxies_are_behind_while_more_than_a_tenth_is_silent() {
        let (mut publisher, mut proxies) = (published(&["a"]), Proxies::default());
        let pods: Vec<ProxyId> = (0..10).map(|at| pod(&at.to_string())).collect();
        assert!(!publisher.is_behind(&proxies), "nobody is waited for");
        for proxy in &pods {
            publisher.connect(proxy, 1, Some(&group("a")));
            proxies.connected(proxy);
        }
        assert!(publisher.is_behind(&proxies), "all are silent");
        let report = |number| ReportPart {
            version: Version { epoch: "term".to_owned(), number },
            commit: true,
            ..ReportPart::default()
        };
        for proxy in &pods[..8] {
            proxies.reported(proxy, report(2), true);
        }
        proxies.reported(&pods[8], report(1), true);
        assert!(publisher.is_behind(&proxies), "one is silent, and one has not applied the last snapshot");
        proxies.reported(&pods[8], report(2), true);
        assert!(!publisher.is_behind(&proxies), "one of ten is not waited for");
    }
}
