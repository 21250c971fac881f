//! The one task that owns all state.
//!
//! ```text
//! watch messages ─▶ cache ─▶ (debounce) ─▶ translate ─▶ publisher ─▶ streams
//! streams        ─▶ proxies ─▶ (debounce) ─▶ status ─▶ writer
//! ```
//!
//! Messages only mark what has to be looked at; a look comes a moment later and takes all that came meanwhile. While not
//! every cache is complete, or while another replica leads, nothing is translated, published or written.

mod costs;
mod gateways;
mod leading;
mod scalers;
mod statuses;
mod streams;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use self::leading::Leading;
pub use self::{
    costs::Costs,
    gateways::{Applied, Gateways},
    scalers::{Scaled, Scalers},
    statuses::Statuses,
};

use crate::{
    inputs::{
        metrics_api::Question,
        streams::FromStream,
        watch::{Message, Watches},
        webhook::Selectors,
    },
    outputs::status_writer::Written,
    platform::{lease, metrics::Metrics},
};
use operator_core::{Cache, Changes, Group, Subject, Touched};

/// Pause after the first message before the world is looked at.
const SETTLE: Duration = Duration::from_millis(20);
/// Longest time that further messages may put the look off.
const SETTLE_MOST: Duration = Duration::from_millis(200);
/// Longest time that the look waits for reports on what was published last, while many are missing: proxies that are all
/// told at once of many changes share the work that proxies told one by one would make.
const SETTLE_BEHIND: Duration = Duration::from_millis(500);
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
    /// From the application of autoscalers.
    pub scaled: mpsc::Receiver<Scaled>,
    /// From the metrics API.
    pub questions: mpsc::Receiver<Question>,
    /// From the election.
    pub term: watch::Receiver<lease::Term>,
}

/// What a leader writes to the API server.
pub struct Writers {
    /// Statuses of forwards.
    pub statuses: Statuses,
    /// Children and statuses of gateways.
    pub gateways: Gateways,
    /// Autoscalers.
    pub scalers: Scalers,
    /// Costs of deleting pods.
    pub costs: Costs,
}

/// What the driver works with.
pub struct Driver {
    cache: Cache,
    watches: Watches,
    metrics: Arc<Metrics>,
    synced: watch::Sender<bool>,
    statuses: Statuses,
    gateways: Gateways,
    scalers: Scalers,
    costs: Costs,
    selectors: Arc<Selectors>,
    /// While this replica leads.
    leading: Option<Leading>,
    /// When what was touched is to be looked at.
    dirty: Option<Dirty>,
    /// What was touched since the last look.
    touched: Touched,
}

/// Something was touched.
#[derive(Clone, Copy)]
struct Dirty {
    since: Instant,
    /// When to look at it.
    at: Instant,
}

impl Driver {
    /// A driver that knows nothing yet.
    #[must_use]
    pub fn new(
        cache: Cache,
        watches: Watches,
        metrics: Arc<Metrics>,
        synced: watch::Sender<bool>,
        selectors: Arc<Selectors>,
        Writers { statuses, gateways, scalers, costs }: Writers,
    ) -> Self {
        Self {
            cache,
            watches,
            metrics,
            synced,
            statuses,
            gateways,
            scalers,
            costs,
            selectors,
            leading: None,
            dirty: None,
            touched: Touched::default(),
        }
    }

    /// Works until the election is over and its sender gone.
    pub async fn run(mut self, mut inputs: Inputs) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let far = Instant::now() + Duration::from_secs(3600);
            let look = self.dirty.map_or(far, |dirty| dirty.at);
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
                Some(scaled) = inputs.scaled.recv() => self.scaled(scaled),
                Some(question) = inputs.questions.recv() => self.answer(question),
                () = sleep_until(look) => self.look(),
                () = sleep_until(evaluate) => self.evaluate(),
                _ = tick.tick() => self.tick(),
            }
        }
    }

    fn term(&mut self, term: lease::Term) {
        self.statuses.forget();
        self.gateways.forget();
        self.scalers.forget();
        self.costs.forget();
        // Dropping the publisher ends every stream of the term.
        self.leading = term.map(Leading::new);
        self.touch();
        self.metrics.proxies.set(0);
    }

    fn seen(&mut self, (source, seen): Message) {
        let left_out = self.cache.left_out;
        let touched = self.cache.apply(&source, seen);
        if self.cache.left_out != left_out {
            if left_out == 0 {
                tracing::warn!(?source, "more objects than --max-objects: the others are left out");
            }
            self.metrics.left_out.set(i64::try_from(self.cache.left_out).unwrap_or(i64::MAX));
        }
        if self.leading.is_some() {
            for key in &touched.forwards {
                self.statuses.seen(key, self.cache.forward(key).as_deref(), Instant::now());
            }
        }
        for key in &touched.changes.forwards {
            let sidecar =
                self.cache.world.forwards.get(key).and_then(|forward| forward.spec.placement.sidecar.as_ref());
            self.selectors.set(key, sidecar.map(|sidecar| &sidecar.selector));
        }
        for key in &touched.gateways {
            self.gateways.touch(key);
        }
        if touched.synced || !touched.changes.is_empty() || !touched.proxy_pods.is_empty() {
            self.touch();
        }
        for grown in touched.grown.iter().filter(|_| self.leading.is_some()) {
            self.statuses.grown(grown, &self.cache);
        }
        self.touched.absorb(touched);
        // Once ready, it stays so: what a list that starts anew delays is publishing, and nothing that a probe should see.
        let synced = self.cache.is_synced();
        self.synced.send_if_modified(|now| synced && !std::mem::replace(now, true));
    }

    fn touch(&mut self) {
        let now = Instant::now();
        let dirty = self.dirty.unwrap_or(Dirty { since: now, at: now });
        let at = dirty.at.max((now + SETTLE).min(dirty.since + SETTLE_MOST));
        self.dirty = Some(Dirty { at, ..dirty });
    }

    /// Looks at what was touched: translates and publishes what is new.
    fn look(&mut self) {
        let now = Instant::now();
        let leads = self.leading.as_ref();
        if let Some(dirty) = self.dirty.filter(|dirty| now < dirty.since + SETTLE_BEHIND)
            && leads.is_some_and(|leading| leading.publisher.is_behind(&leading.proxies))
        {
            self.dirty = Some(Dirty { at: now + SETTLE, ..dirty });
            return;
        }
        self.dirty = None;
        if self.touched.changes.all || !self.touched.changes.forwards.is_empty() {
            self.follow_namespaces();
        }
        self.metrics.forwards.set(i64::try_from(self.cache.world.forwards.len()).unwrap_or(i64::MAX));
        let Some(leading) = &mut self.leading else {
            // Whoever begins to lead looks at everything.
            self.touched = Touched::default();
            return;
        };
        if !self.cache.is_synced() {
            return;
        }
        self.cache.open();
        let mut touched = std::mem::take(&mut self.touched);
        if !leading.published {
            touched.changes = Changes::all();
            touched.proxy_pods = self.cache.proxy_pods.keys().cloned().collect();
        }
        let (moved, update) = leading.take(&touched, &self.cache, &self.metrics);
        leading.published = true;
        let now = Instant::now();
        self.statuses.verdicts(update.verdicts, now);
        // A new generation is observed even if it means the same.
        self.statuses.look_at(touched.changes.forwards, now);
        self.statuses.fleets(&moved, &leading.translator, now);
        for group in moved.keys() {
            if let Group::Gateway(key) = group {
                self.gateways.touch(key);
            }
        }
        for group in &update.ports {
            if let Group::Gateway(key) = group {
                self.gateways.listeners(key);
            }
        }
    }

    /// Watches the pods of just those namespaces that have sidecar forwards.
    fn follow_namespaces(&mut self) {
        let wanted: BTreeSet<String> = self.cache.sidecar_namespaces().cloned().collect();
        let watched = self.cache.watched_pods();
        for namespace in wanted.difference(&watched) {
            let source = self.watches.watch_pods(namespace);
            self.cache.expect(source);
        }
        for namespace in watched.difference(&wanted) {
            self.watches.unwatch_pods(namespace);
            let forgotten = self.cache.forget_pods(namespace);
            self.touched.absorb(forgotten);
        }
    }

    fn evaluate(&mut self) {
        let Some(leading) = self.leading.as_ref().filter(|leading| leading.published) else {
            self.statuses.pause();
            return;
        };
        self.statuses.evaluate(leading, &self.cache, &self.scalers, Instant::now());
        self.metrics.outstanding.set(i64::try_from(self.statuses.outstanding()).unwrap_or(i64::MAX));
    }

    fn scaled(&mut self, scaled: Scaled) {
        let now = Instant::now();
        if let Some(subject) = self.scalers.scaled(scaled, now) {
            self.look_at(&subject, now);
        }
    }

    fn look_at(&mut self, subject: &Subject, now: Instant) {
        match subject {
            Subject::Forward(key) => self.statuses.look_at(BTreeSet::from([key.clone()]), now),
            Subject::Gateway(key) => self.gateways.touch(key),
        }
    }

    fn tick(&mut self) {
        let Some(leading) = self.leading.as_ref().filter(|leading| leading.published) else { return };
        if !self.cache.is_synced() {
            return;
        }
        self.metrics.proxies.set(i64::try_from(leading.proxies.connected_count()).unwrap_or(i64::MAX));
        self.statuses.refresh(Instant::now());
        let others = self.scalers.tick(&self.cache, Instant::now());
        self.costs.tick(leading, &self.cache, Instant::now());
        self.gateways.tick(leading, &self.cache, &self.scalers, Instant::now());
        for subject in others {
            self.look_at(&subject, Instant::now());
        }
    }
}
