//! Publishes translations as snapshots, and points the stream of each proxy to the snapshot of its group.

mod asks;
mod deltas;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use operator_core::{Group, Proxies, ProxyId, Snapshot};
use proxy_api::Version;
use tokio::sync::{mpsc, watch};

pub(crate) use self::deltas::encode;
pub use self::{asks::Ask, deltas::Deltas};

/// The snapshot that a proxy should run, as its stream sees it.
pub type Target = watch::Receiver<Arc<Snapshot>>;

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
    /// The last number that was sent to pods without a stream. A pod keeps its number, and accepts no smaller one.
    had: BTreeMap<ProxyId, u64>,
}

#[derive(Debug)]
struct Stream {
    id: u64,
    group: Option<Group>,
    target: watch::Sender<Arc<Snapshot>>,
    /// The queue of asks. Absent until the stream is admitted.
    asks: Option<mpsc::Sender<Ask>>,
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

    /// Sets the snapshot of a group, or removes the group, and notifies the streams of the group.
    pub fn publish(&mut self, group: &Group, snapshot: Option<Arc<Snapshot>>) {
        match snapshot {
            Some(snapshot) => drop(self.snapshots.insert(group.clone(), snapshot)),
            None => drop(self.snapshots.remove(group)),
        }
        for proxy in self.followers.get(group).cloned().unwrap_or_default() {
            self.notify(&proxy);
        }
    }

    /// The snapshot of a group; the empty one for a group without a snapshot, and without a group.
    #[must_use]
    pub fn snapshot(&self, group: Option<&Group>) -> Arc<Snapshot> {
        group.and_then(|group| self.snapshots.get(group)).unwrap_or(&self.empty).clone()
    }

    /// Opens the stream of a pod. An older stream of the same pod ends.
    pub fn connect(&mut self, proxy: &ProxyId, id: u64, group: Option<&Group>) -> Target {
        self.remove(proxy);
        let mut snapshot = self.snapshot(group);
        if self.had.remove(proxy).is_some_and(|had| snapshot.version.number < had) {
            snapshot = self.renumber(group);
        }
        let (target, receiver) = watch::channel(snapshot);
        self.streams.insert(proxy.clone(), Stream { id, group: group.cloned(), target, asks: None });
        self.follow(proxy, group);
        receiver
    }

    /// Opens the queue of asks of a pod's stream. Without a stream, the queue is closed.
    pub fn open_asks(&mut self, proxy: &ProxyId) -> mpsc::Receiver<Ask> {
        let (sender, receiver) = asks::queue();
        if let Some(stream) = self.streams.get_mut(proxy) {
            stream.asks = Some(sender);
        }
        receiver
    }

    /// The queue of asks of a pod's stream; `None` without a stream.
    #[must_use]
    pub fn asks(&self, proxy: &ProxyId) -> Option<mpsc::Sender<Ask>> {
        self.streams.get(proxy)?.asks.clone()
    }

    /// The pods whose streams follow a group, terminating pods included.
    pub fn followers(&self, group: &Group) -> impl Iterator<Item = &ProxyId> {
        self.followers.get(group).into_iter().flatten()
    }

    /// The snapshot that the stream of a pod leads to; `None` without a stream.
    #[must_use]
    pub fn target(&self, proxy: &ProxyId) -> Option<Arc<Snapshot>> {
        Some(self.streams.get(proxy)?.target.borrow().clone())
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

    /// Moves a pod to this group and notifies its stream. Returns whether the stream followed another group before.
    pub fn place(&mut self, proxy: &ProxyId, group: Option<&Group>) -> bool {
        let Some(stream) = self.streams.get_mut(proxy).filter(|stream| stream.group.as_ref() != group) else {
            return false;
        };
        let old = std::mem::replace(&mut stream.group, group.cloned());
        self.unfollow(proxy, old.as_ref());
        self.follow(proxy, group);
        self.notify(proxy);
        true
    }

    /// Removes a stream that ended. Returns whether this was the pod's newest stream; an older one is ignored.
    pub fn disconnect(&mut self, proxy: &ProxyId, id: u64) -> bool {
        let is_newest = self.is_newest(proxy, id);
        if is_newest {
            self.remove(proxy);
        }
        is_newest
    }

    /// Ends the stream of a pod.
    pub fn remove(&mut self, proxy: &ProxyId) {
        if let Some(stream) = self.streams.remove(proxy) {
            self.had.insert(proxy.clone(), stream.target.borrow().version.number);
            self.unfollow(proxy, stream.group.as_ref());
        }
    }

    /// Ends the stream of a pod that is gone, and forgets its number.
    pub fn forget(&mut self, proxy: &ProxyId) {
        self.remove(proxy);
        self.had.remove(proxy);
    }

    /// Whether this is the newest stream of the pod.
    #[must_use]
    pub fn is_newest(&self, proxy: &ProxyId, id: u64) -> bool {
        self.streams.get(proxy).is_some_and(|stream| stream.id == id)
    }

    /// Whether more than a tenth of all proxies have not acked their last snapshot, so that waiting for them pays.
    #[must_use]
    pub fn is_behind(&self, proxies: &Proxies) -> bool {
        let number = |stream: &Stream| stream.target.borrow().version.number;
        let is_behind = |(proxy, stream): &(&ProxyId, &Stream)| {
            proxies.get(proxy).is_none_or(|state| state.applied < number(stream))
        };
        let behind = self.streams.iter().filter(is_behind).count();
        behind * 10 > self.streams.len()
    }

    /// Notifies a stream of the snapshot that its pod should run now.
    fn notify(&mut self, proxy: &ProxyId) {
        let Some(stream) = self.streams.get(proxy) else { return };
        let group = stream.group.clone();
        let has = stream.target.borrow().version.number;
        let mut next = self.snapshot(group.as_ref());
        if next.version.number < has {
            // The pod came from another group: within a term, numbers only grow.
            next = self.renumber(group.as_ref());
        }
        if let Some(stream) = self.streams.get(proxy) {
            stream.target.send_if_modified(|now| {
                let modified = !Arc::ptr_eq(now, &next);
                *now = next;
                modified
            });
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
    use super::*;

    fn pod(name: &str) -> ProxyId {
        ProxyId::Pod(operator_core::ObjectKey::new("ns", name))
    }

    fn group(name: &str) -> Group {
        Group::Gateway(operator_core::ObjectKey::new("ns", name))
    }

    fn snapshot(number: u64) -> Arc<Snapshot> {
        Arc::new(Snapshot::empty(Version { epoch: "term".to_owned(), number }))
    }

    fn number(target: &Target) -> u64 {
        target.borrow().version.number
    }

    #[test]
    fn only_streams_of_a_group_are_notified_of_its_snapshot() {
        let mut publisher = Publisher::new("term".to_owned());
        let mut targets: Vec<Target> =
            ["a", "b"].iter().map(|name| publisher.connect(&pod(name), 1, Some(&group(name)))).collect();
        let version = publisher.next_version();
        publisher.publish(&group("a"), Some(snapshot(version.number)));
        let notified: Vec<bool> = targets.iter().map(|target| target.has_changed().expect("open")).collect();
        assert_eq!((notified, number(&targets[0])), (vec![true, false], version.number));
        targets[0].borrow_and_update();
        publisher.remove(&pod("a"));
        assert!(targets[0].has_changed().is_err() && targets[1].has_changed().is_ok());
    }

    #[test]
    fn a_pod_that_changes_its_group_is_never_sent_a_smaller_number() {
        let mut publisher = Publisher::new("term".to_owned());
        for name in ["a", "b"] {
            let version = publisher.next_version();
            publisher.publish(&group(name), Some(snapshot(version.number)));
        }
        let target = publisher.connect(&pod("p"), 1, Some(&group("b")));
        let had = number(&target);
        publisher.place(&pod("p"), Some(&group("a")));
        assert!(number(&target) > had);
        let had = number(&target);
        publisher.place(&pod("p"), None);
        assert!(number(&target) > had && target.borrow().listeners.is_empty());
    }

    #[test]
    fn a_pod_that_comes_back_to_a_smaller_number_takes_it() {
        let mut publisher = Publisher::new("term".to_owned());
        for name in ["a", "b"] {
            let version = publisher.next_version();
            publisher.publish(&group(name), Some(snapshot(version.number)));
        }
        let had = number(&publisher.connect(&pod("p"), 1, Some(&group("b"))));
        publisher.remove(&pod("p"));
        for at in [Some(group("a")), None] {
            assert!(number(&publisher.connect(&pod("p"), 2, at.as_ref())) > had, "{at:?}");
        }
        publisher.forget(&pod("p"));
        assert!(publisher.had.is_empty());
    }

    #[test]
    fn a_second_stream_of_a_pod_replaces_the_first() {
        let mut publisher = Publisher::new("term".to_owned());
        let first = publisher.connect(&pod("p"), 1, None);
        let second = publisher.connect(&pod("p"), 2, None);
        assert!(first.has_changed().is_err(), "the sender of the first stream is dropped");
        assert!(!publisher.disconnect(&pod("p"), 1), "the second stream stays");
        assert!(second.has_changed().is_ok() && publisher.is_newest(&pod("p"), 2));
    }
    #[test]
    fn asks_reach_the_newest_stream_of_a_pod() {
        let ask = || {
            let (reply, answer) = tokio::sync::oneshot::channel();
            (Ask { selection: proxy_api::Selection { limit: 7, ..proxy_api::Selection::default() }, reply }, answer)
        };
        let mut publisher = Publisher::new("term".to_owned());
        assert!(publisher.asks(&pod("p")).is_none() && publisher.target(&pod("p")).is_none(), "no stream");
        let _first = publisher.connect(&pod("p"), 1, Some(&group("a")));
        let mut old = publisher.open_asks(&pod("p"));
        let _second = publisher.connect(&pod("p"), 2, Some(&group("b")));
        assert!(publisher.asks(&pod("p")).is_none(), "the stream is not admitted yet");
        let mut new = publisher.open_asks(&pod("p"));
        let queue = publisher.asks(&pod("p")).expect("a stream");
        let (asks, _answers): (Vec<_>, Vec<_>) = std::iter::repeat_with(ask).take(9).unzip();
        let taken = asks.into_iter().filter_map(|ask| queue.try_send(ask).ok()).count();
        assert_eq!(taken, 4, "the queue is bounded");
        assert!(old.try_recv().is_err());
        assert_eq!(new.try_recv().expect("an ask").selection.limit, 7);
        assert_eq!(publisher.followers(&group("b")).collect::<Vec<_>>(), [&pod("p")]);
        assert_eq!(publisher.followers(&group("a")).count(), 0);
        assert!(publisher.open_asks(&pod("other")).try_recv().is_err(), "no stream, no asks");
    }
}
