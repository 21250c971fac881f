//! The one task that owns all state.
//!
//! ```text
//! watch messages ─▶ cache ─▶ (debounce) ─▶ translate ─▶ publisher ─▶ streams
//! streams        ─▶ proxies ─▶ (debounce) ─▶ status ─▶ writer
//! ```
//!
//! Messages only mark what has to be looked at; a look comes a moment later and takes all that came meanwhile. While not
//! every cache is complete, or while another replica leads, nothing is translated, published or written.

mod gateways;
mod statuses;
mod streams;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use operator_core::{Fleet, Group, ObjectKey, Proxies, Translation, Verdict, translate};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

pub use self::{
    gateways::{Applied, Gateways},
    statuses::Statuses,
};
use crate::{
    cache::{Cache, Touched},
    lease,
    metrics::Metrics,
    publish::{Deltas, Publisher},
    serve::FromStream,
    status_writer::Written,
    watch::{Message, Watches},
};

/// Pause after the first message before the world is looked at.
const SETTLE: Duration = Duration::from_millis(20);
/// Longest time that further messages may put the look off.
const SETTLE_MOST: Duration = Duration::from_millis(200);
/// How often what is due is looked at.
const TICK: Duration = Duration::from_millis(250);
/// Messages taken at once.
const BATCH: usize = 512;

/// What the driver listens to.
pub struct Inputs {
    /// From watches.
    pub watches: mpsc::Receiver<Message>,
    /// From proxies.
    pub streams: mpsc::Receiver<FromStream>,
    /// From the status writer.
    pub written: mpsc::Receiver<Written>,
    /// From the application of children.
    pub applied: mpsc::Receiver<Applied>,
    /// From the election.
    pub term: watch::Receiver<lease::Term>,
}

/// What the driver works with.
pub struct Driver {
    cache: Cache,
    watches: Watches,
    metrics: Arc<Metrics>,
    synced: watch::Sender<bool>,
    statuses: Statuses,
    gateways: Gateways,
    /// While this replica leads.
    leading: Option<Leading>,
    /// When the world, or what is known of fleets, is to be looked at: soonest, latest.
    dirty: Option<(Instant, Instant)>,
    world_dirty: bool,
}

/// State of one term.
struct Leading {
    publisher: Publisher,
    deltas: Arc<Deltas>,
    translation: Translation,
    /// A translation has been published in this term.
    published: bool,
    fleets: BTreeMap<Group, Fleet>,
    group_of: BTreeMap<ObjectKey, Group>,
    proxies: Proxies,
}

impl Leading {
    fn new(term: String) -> Self {
        Self {
            publisher: Publisher::new(term),
            deltas: Arc::default(),
            translation: Translation::default(),
            published: false,
            fleets: BTreeMap::new(),
            group_of: BTreeMap::new(),
            proxies: Proxies::default(),
        }
    }
}

impl Driver {
    /// A driver that knows nothing yet.
    #[must_use]
    pub fn new(
        cache: Cache,
        watches: Watches,
        metrics: Arc<Metrics>,
        synced: watch::Sender<bool>,
        statuses: Statuses,
        gateways: Gateways,
    ) -> Self {
        Self { cache, watches, metrics, synced, statuses, gateways, leading: None, dirty: None, world_dirty: false }
    }

    /// Works until the election is over and its sender gone.
    pub async fn run(mut self, mut inputs: Inputs) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let far = Instant::now() + Duration::from_secs(3600);
            let look = self.dirty.map_or(far, |(soonest, latest)| soonest.min(latest));
            let evaluate = self.statuses.due().unwrap_or(far);
            tokio::select! {
                changed = inputs.term.changed() => {
                    if changed.is_err() { return; }
                    let term = inputs.term.borrow_and_update().clone();
                    self.term(term);
                }
                Some(message) = inputs.watches.recv() => {
                    self.seen(message);
                    for _ in 0..BATCH {
                        let Ok(message) = inputs.watches.try_recv() else { break };
                        self.seen(message);
                    }
                }
                Some(message) = inputs.streams.recv() => {
                    self.heard(message);
                    for _ in 0..BATCH {
                        let Ok(message) = inputs.streams.try_recv() else { break };
                        self.heard(message);
                    }
                }
                Some(written) = inputs.written.recv() => self.statuses.written(&written, Instant::now()),
                Some(applied) = inputs.applied.recv() => self.gateways.applied(applied),
                () = sleep_until(look) => self.look(),
                () = sleep_until(evaluate) => self.evaluate(),
                _ = tick.tick() => self.tick(),
            }
        }
    }

    fn term(&mut self, term: lease::Term) {
        self.statuses.forget();
        self.gateways.forget();
        // Dropping the publisher ends every stream of the term.
        self.leading = term.map(Leading::new);
        if self.leading.is_some() {
            self.touch(true);
        }
        self.metrics.proxies.set(0);
    }

    fn seen(&mut self, (source, seen): Message) {
        let touched = self.cache.apply(&source, seen);
        self.touched(&touched);
        let synced = self.cache.is_synced();
        self.synced.send_if_modified(|now| std::mem::replace(now, synced) != synced);
    }

    fn touched(&mut self, touched: &Touched) {
        if let Some(key) = &touched.forward {
            self.statuses.seen(key, self.cache.world.forwards.get(key), Instant::now());
        }
        if let Some(key) = &touched.gateway {
            self.gateways.touch(key);
        }
        if touched.world || touched.fleets || touched.synced {
            self.touch(touched.world || touched.synced);
        }
    }

    fn touch(&mut self, world: bool) {
        let now = Instant::now();
        let latest = self.dirty.map_or(now + SETTLE_MOST, |(_, latest)| latest);
        self.dirty = Some((now + SETTLE, latest));
        self.world_dirty |= world;
    }

    /// Looks at the world: translates and publishes what is new.
    fn look(&mut self) {
        self.dirty = None;
        self.follow_namespaces();
        self.metrics.forwards.set(i64::try_from(self.cache.world.forwards.len()).unwrap_or(i64::MAX));
        let Some(leading) = &mut self.leading else { return };
        if !self.cache.is_synced() {
            return;
        }
        if self.world_dirty || !leading.published {
            self.world_dirty = false;
            let started = std::time::Instant::now();
            let mut translation = translate(&self.cache.world);
            self.metrics.translation.observe(started.elapsed().as_secs_f64());
            let snapshots = leading.publisher.update(&mut translation);
            self.metrics.snapshots.inc_by(snapshots as u64);
            let changed = changed(&leading.translation.verdicts, &translation.verdicts);
            self.statuses.verdicts(changed, Instant::now());
            leading.translation = translation;
            leading.published = true;
        }
        let started = std::time::Instant::now();
        let moved = leading.find_fleets(&self.cache);
        leading.tell(&self.cache);
        self.metrics.publish.observe(started.elapsed().as_secs_f64());
        self.statuses.fleets(&moved, &leading.translation.verdicts, Instant::now());
        for group in moved.keys() {
            if let Group::Gateway(key) = group {
                self.gateways.touch(key);
            }
        }
        self.gateways.listeners(leading);
    }

    /// Watches the pods of just those namespaces that have sidecar forwards.
    fn follow_namespaces(&mut self) {
        let wanted = self.cache.sidecar_namespaces();
        let watched = self.cache.watched_pods();
        for namespace in wanted.difference(&watched) {
            let source = self.watches.watch_pods(namespace);
            self.cache.expect(source);
        }
        for namespace in watched.difference(&wanted) {
            self.watches.unwatch_pods(namespace);
            self.cache.forget_pods(namespace);
        }
    }

    fn evaluate(&mut self) {
        let Some(leading) = self.leading.as_ref().filter(|leading| leading.published) else {
            self.statuses.pause();
            return;
        };
        self.statuses.evaluate(leading, &self.cache, Instant::now());
        self.metrics.outstanding.set(i64::try_from(self.statuses.outstanding()).unwrap_or(i64::MAX));
    }

    fn tick(&mut self) {
        let Some(leading) = self.leading.as_ref().filter(|leading| leading.published) else { return };
        if !self.cache.is_synced() {
            return;
        }
        self.metrics.proxies.set(i64::try_from(leading.proxies.connected_count()).unwrap_or(i64::MAX));
        self.statuses.refresh(Instant::now());
        self.gateways.tick(leading, &self.cache, Instant::now());
    }
}

/// The forwards on which the verdict is another one, or new.
fn changed(old: &BTreeMap<ObjectKey, Verdict>, new: &BTreeMap<ObjectKey, Verdict>) -> Vec<ObjectKey> {
    new.iter().filter(|(key, verdict)| old.get(*key) != Some(*verdict)).map(|(key, _)| key.clone()).collect()
}

/// What became of a group's fleet: whether it has, or has no longer, any ready proxy.
type Moved = BTreeMap<Group, bool>;

impl Leading {
    /// Brings fleets up to date with pods and snapshots; gives those whose pods are others.
    fn find_fleets(&mut self, cache: &Cache) -> Moved {
        let mut pods: BTreeMap<Group, (BTreeSet<ObjectKey>, usize)> = BTreeMap::new();
        self.group_of.clear();
        for (key, pod) in &cache.proxy_pods {
            let Some(group) = cache.gateway_of(key) else { continue };
            self.group_of.insert(key.clone(), group.clone());
            if !pod.leaving {
                let fleet = pods.entry(group).or_default();
                fleet.0.insert(key.clone());
                fleet.1 += usize::from(pod.ready);
            }
        }
        for (group, members) in &self.translation.pods {
            for pod in members {
                self.group_of.insert(pod.clone(), group.clone());
            }
            pods.insert(group.clone(), (members.clone(), members.len()));
        }
        let groups = cache.world.gateways.keys().map(|key| Group::Gateway(key.clone()));
        for group in groups {
            pods.entry(group).or_default();
        }
        let mut moved = Moved::new();
        let mut fleets = BTreeMap::new();
        for (group, (pods, ready)) in pods {
            let snapshot = self.publisher.snapshot(Some(&group));
            match self.fleets.remove(&group) {
                Some(old) if old.pods == pods && old.ready == ready => {}
                old => {
                    let had = old.is_some_and(|old| old.ready > 0);
                    moved.insert(group.clone(), had != (ready > 0));
                }
            }
            fleets.insert(group, Fleet { snapshot, pods, ready });
        }
        self.fleets = fleets;
        moved
    }

    /// Tells every stream what its pod is to run. Pods that are gone have no stream any more.
    fn tell(&mut self, cache: &Cache) {
        let gone: Vec<ObjectKey> =
            self.publisher.connected().into_iter().filter(|pod| cache.pod(pod).is_none()).collect();
        for pod in gone {
            self.publisher.remove(&pod);
            self.proxies.gone(&pod);
        }
        let group_of = &self.group_of;
        self.publisher.tell(|pod| group_of.get(pod).cloned());
    }
}
