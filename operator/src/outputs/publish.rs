//! Publishes translations as snapshots: the channels to the streams of proxies, and the encoded steps between snapshots.

mod asks;
mod deltas;

use std::{collections::BTreeMap, sync::Arc};

use operator_core::{ProxyId, Snapshot, publish::publisher::Step};
use tokio::sync::{mpsc, watch};

pub(crate) use self::deltas::encode;
pub use self::{asks::Ask, deltas::Deltas};

/// The snapshot that a proxy should run, as its stream sees it.
pub type Target = watch::Receiver<Arc<Snapshot>>;

/// The channels to the open streams of one term. The streams end when this is dropped.
#[derive(Debug, Default)]
pub struct Channels {
    by_proxy: BTreeMap<ProxyId, Channel>,
}

#[derive(Debug)]
struct Channel {
    target: watch::Sender<Arc<Snapshot>>,
    asks: mpsc::Sender<Ask>,
}

impl Channels {
    /// Opens the channels to a new stream, which begins at this snapshot. An older stream of the same proxy ends.
    pub fn open(&mut self, proxy: &ProxyId, snapshot: Arc<Snapshot>) -> (Target, mpsc::Receiver<Ask>) {
        let (target, led) = watch::channel(snapshot);
        let (asks, asked) = asks::queue();
        self.by_proxy.insert(proxy.clone(), Channel { target, asks });
        (led, asked)
    }

    /// The queue of asks of a proxy's stream; `None` without a stream.
    #[must_use]
    pub fn asks(&self, proxy: &ProxyId) -> Option<mpsc::Sender<Ask>> {
        Some(self.by_proxy.get(proxy)?.asks.clone())
    }

    /// Tells streams the decisions of the publisher.
    pub fn run(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Lead(proxy, next) => {
                    if let Some(channel) = self.by_proxy.get(&proxy) {
                        channel.target.send_replace(next);
                    }
                }
                Step::End(proxy) => drop(self.by_proxy.remove(&proxy)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proxy_api::Version;

    use super::*;

    fn pod(name: &str) -> ProxyId {
        ProxyId::Pod(operator_core::ObjectKey::new("ns", name))
    }

    fn snapshot(number: u64) -> Arc<Snapshot> {
        Arc::new(Snapshot::empty(Version { epoch: "term".to_owned(), number }))
    }

    #[test]
    fn a_stream_sees_where_it_is_led_and_that_it_ends() {
        let mut channels = Channels::default();
        let mut targets: Vec<Target> = ["a", "b"].map(|name| channels.open(&pod(name), snapshot(1)).0).into();
        channels.run(vec![Step::Lead(pod("a"), snapshot(2)), Step::Lead(pod("other"), snapshot(2))]);
        let notified: Vec<bool> = targets.iter().map(|target| target.has_changed().expect("open")).collect();
        assert_eq!((notified, targets[0].borrow_and_update().version.number), (vec![true, false], 2));
        channels.run(vec![Step::End(pod("a"))]);
        assert!(targets[0].has_changed().is_err() && targets[1].has_changed().is_ok());
        drop(channels);
        assert!(targets[1].has_changed().is_err(), "the term is over");
    }

    #[test]
    fn asks_reach_the_newest_stream_of_a_proxy() {
        let ask = || {
            let (reply, answer) = tokio::sync::oneshot::channel();
            let selection = Box::new(proxy_api::Selection { limit: 7, ..proxy_api::Selection::default() });
            (Ask { selection, reply }, answer)
        };
        let mut channels = Channels::default();
        assert!(channels.asks(&pod("p")).is_none(), "no stream");
        let (first, mut old) = channels.open(&pod("p"), snapshot(1));
        let (second, mut new) = channels.open(&pod("p"), snapshot(1));
        assert!(first.has_changed().is_err() && second.has_changed().is_ok(), "the first stream ends");
        let queue = channels.asks(&pod("p")).expect("a stream");
        let (asks, _answers): (Vec<_>, Vec<_>) = std::iter::repeat_with(ask).take(9).unzip();
        let taken = asks.into_iter().filter_map(|ask| queue.try_send(ask).ok()).count();
        assert_eq!(taken, 4, "the queue is bounded");
        assert!(old.try_recv().is_err());
        assert_eq!(new.try_recv().expect("an ask").selection.limit, 7);
        channels.run(vec![Step::End(pod("p"))]);
        assert!(channels.asks(&pod("p")).is_none());
    }
}
