//! The objects that a watch selects, in their present state.

use std::{collections::BTreeMap, iter, pin::pin, time::Duration};

use futures_util::{Stream, StreamExt};
use kube::{
    core::NamespaceResourceScope,
    runtime::{
        WatchStreamExt,
        utils::Backoff,
        watcher::{self, Event, watcher},
    },
};
use kubectl_core::access::{Place, Unknown};
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_local},
    time::timeout,
};

use crate::cluster::{Asked, Cluster, Kind};

/// Duration of one watch request, seconds. The watcher gives up a connection that stays silent for five more seconds: a
/// laptop that slept, or changed its network, sees the cluster again within 30 s.
const WATCH_SECONDS: u32 = 25;
/// Shortest and longest pause after failures.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// The state of a watch.
struct Seen<K> {
    /// Objects by name.
    objects: BTreeMap<String, K>,
    is_listed: bool,
    /// Why the watch fails at present.
    problem: Option<Unknown>,
}

/// A watch of a namespace, until it is dropped.
pub(super) struct Watched<K> {
    seen: watch::Receiver<Seen<K>>,
    place: Place,
    /// Whether the caller knows the present problem.
    is_told: bool,
    task: JoinHandle<()>,
}

impl<K> Drop for Watched<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<K> Watched<K>
where
    K: Kind + kube::Resource<Scope = NamespaceResourceScope> + Send + 'static,
{
    /// Starts a watch.
    pub(super) fn start(cluster: &Cluster, namespace: &str, config: watcher::Config) -> Self {
        let (out, seen) = watch::channel(Seen { objects: BTreeMap::new(), is_listed: false, problem: None });
        let events = watcher(cluster.api::<K>(namespace), config.timeout(WATCH_SECONDS));
        let place = Place::Namespace(namespace.to_owned());
        let task = spawn_local(follow(events, out, place.clone()));
        Self { seen, place, is_told: false, task }
    }

    /// Waits for the first list.
    pub(super) async fn listed(&mut self, deadline: Duration) -> Result<(), Unknown> {
        let is_decided = |seen: &Seen<K>| seen.is_listed || matches!(seen.problem, Some(Unknown::Forbidden { .. }));
        drop(timeout(deadline, self.seen.wait_for(is_decided)).await);
        let seen = self.seen.borrow();
        if seen.is_listed {
            return Ok(());
        }
        let asked = Asked::of::<K>("list", self.place.clone());
        let late = || asked.failed(format!("no answer within {} s", deadline.as_secs()));
        Err(seen.problem.clone().unwrap_or_else(late))
    }

    /// Waits for a change. Returns a new problem, if any.
    pub(super) async fn changed(&mut self) -> Option<Unknown> {
        if self.seen.changed().await.is_err() {
            // The watch ends only with this value.
            std::future::pending::<()>().await;
        }
        let problem = self.seen.borrow().problem.clone();
        let is_new = problem.is_some() && !self.is_told;
        self.is_told = problem.is_some();
        problem.filter(|_| is_new)
    }

    /// Applies a function to the objects.
    pub(super) fn with<T>(&self, work: impl FnOnce(&BTreeMap<String, K>) -> T) -> T {
        work(&self.seen.borrow().objects)
    }
}

/// Follows the events until the objects are no longer used.
async fn follow<K: Kind>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    out: watch::Sender<Seen<K>>,
    place: Place,
) {
    let mut events = pin!(events.backoff(Retry::default()));
    let mut listed = BTreeMap::new();
    let named = |object: K| object.meta().name.clone().map(|name| (name, object));
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = BTreeMap::new(),
            Ok(Event::InitApply(object)) => listed.extend(named(object)),
            Ok(Event::InitDone) => {
                let objects = std::mem::take(&mut listed);
                out.send_replace(Seen { objects, is_listed: true, problem: None });
            }
            Ok(Event::Apply(object)) => out.send_modify(|seen| {
                seen.objects.extend(named(object));
                seen.problem = None;
            }),
            Ok(Event::Delete(object)) => out.send_modify(|seen| {
                if let Some((name, _)) = named(object) {
                    seen.objects.remove(&name);
                }
                seen.problem = None;
            }),
            // The resource version is too old, and the watcher restarts by itself.
            Err(watcher::Error::WatchError(status)) if status.code == 410 => {}
            Err(error) => out.send_modify(|seen| seen.problem = Some(unknown::<K>(error, place.clone()))),
        }
    }
}

/// Why a watch fails, with the right that is missing.
fn unknown<K: Kind>(error: watcher::Error, place: Place) -> Unknown {
    let verb = if matches!(error, watcher::Error::InitialListFailed(_)) { "list" } else { "watch" };
    let asked = Asked::of::<K>(verb, place);
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => {
            if status.code == 403 {
                asked.forbidden()
            } else {
                asked.failed(status.message.clone())
            }
        }
        error => asked.failed(error.to_string()),
    }
}

/// Pauses after failures. A person waits, so they grow less than those of a controller.
#[derive(Default)]
struct Retry(usize);

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let (shortest, longest) = RETRY;
        let delay = iter::successors(Some(shortest), |delay| Some(*delay * 2)).nth(self.0.min(8));
        self.0 = self.0.saturating_add(1);
        delay.map(|delay| delay.min(longest))
    }
}

impl Backoff for Retry {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_become_rarer_and_never_end() {
        let mut retry = Retry::default();
        let first: Vec<u128> = retry.by_ref().take(7).map(|delay| delay.as_millis()).collect();
        assert_eq!(first, [200, 400, 800, 1600, 3200, 5000, 5000]);
        retry.reset();
        assert_eq!(retry.next(), Some(RETRY.0));
    }
}
