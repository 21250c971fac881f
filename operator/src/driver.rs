//! The driver: the one task that owns all state. The driver takes inputs, asks the core which effects are due, and runs
//! those effects. `docs/architecture.md` has a picture.
//!
//! Nothing is translated, published or written before every cache has synced, nor while another replica leads.

mod agents;
mod counts;
mod effects;
mod leading;
mod live;
mod patience;
mod results;
mod streams;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use self::leading::Leading;
pub use self::{
    effects::{Applied, Effects},
    patience::Patience,
};
use operator_core::{
    Cache, Touched,
    desired::{ca::Trusted, gateway::Fleets},
    schedule::{
        Dated, Effect, TermNumber,
        debounce::Debounce,
        schedules::{Due, Looked, Schedules},
    },
    status::events::of_growth,
    world::schema::{self, Dropped, Lack},
};

use crate::{
    inputs::{
        questions::Question,
        streams::FromStream,
        watch::{Message, Watches},
        webhook::SharedSelectors,
    },
    outputs::status_writer::Written,
    platform::{doors::ApiServers, lease, liveness::Heartbeat, metrics::Metrics},
};

/// Interval at which the schedules are asked for due effects.
const TICK: Duration = Duration::from_millis(250);
/// Further messages taken from one channel in a row.
const BATCH: usize = 512;

/// The channels that the driver receives from.
pub struct Inputs {
    /// Events of watches.
    pub watches: mpsc::Receiver<Message>,
    /// Messages of proxies' streams.
    pub streams: mpsc::Receiver<FromStream>,
    /// Results of status writes.
    pub written: mpsc::Receiver<Dated<Written>>,
    /// Results of applying children and autoscalers.
    pub applied: mpsc::Receiver<Dated<Applied>>,
    /// Questions from the aggregated APIs.
    pub questions: mpsc::Receiver<Question>,
    /// The fields that the installed CRDs lack.
    pub lacks: watch::Receiver<Vec<Lack>>,
    /// The current term of the leader election.
    pub term: watch::Receiver<lease::Term>,
    /// Heartbeat of the driver.
    pub heartbeat: Heartbeat,
}

/// All state of one replica, and its outputs.
pub struct Driver {
    started: Instant,
    cache: Cache,
    watches: Watches,
    metrics: Arc<Metrics>,
    synced: watch::Sender<bool>,
    selectors: Arc<SharedSelectors>,
    api_servers: Arc<ApiServers>,
    /// Settings that all fleets share.
    fleets: Fleets,
    trusted: watch::Receiver<Trusted>,
    effects: Effects,
    /// Number of the current term, or of the time after a term.
    term: TermNumber,
    schedules: Schedules,
    /// State of the current term; absent while this replica does not lead.
    leading: Option<Leading>,
    debounce: Debounce,
    /// Changes that have not been translated yet.
    touched: Touched,
}

impl Driver {
    /// A driver that does not lead yet.
    #[must_use]
    pub fn new(
        cache: Cache,
        watches: Watches,
        synced: watch::Sender<bool>,
        (selectors, api_servers): (Arc<SharedSelectors>, Arc<ApiServers>),
        (fleets, trusted): (Fleets, watch::Receiver<Trusted>),
        effects: Effects,
    ) -> Self {
        Self {
            started: Instant::now(),
            cache,
            watches,
            metrics: effects.metrics.clone(),
            synced,
            selectors,
            api_servers,
            schedules: Schedules::new(&fleets, effects.autoscaling, Duration::ZERO),
            fleets,
            trusted,
            effects,
            term: TermNumber::default(),
            leading: None,
            debounce: Debounce::default(),
            touched: Touched::default(),
        }
    }

    /// The time since the driver started.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Runs until the leader election has ended and dropped its sender.
    pub async fn run(mut self, mut inputs: Inputs) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            inputs.heartbeat.beat();
            let at =
                |due: Option<Duration>| self.started + due.unwrap_or_else(|| self.now() + Duration::from_secs(3600));
            let (look, evaluate) = (at(self.debounce.due()), at(self.schedules.statuses.due()));
            tokio::select! {
                changed = inputs.term.changed() => {
                    if changed.is_err() { return; }
                    let term = inputs.term.borrow_and_update().clone();
                    self.begin(term);
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
                Some(written) = inputs.written.recv() => self.written(written),
                Some(applied) = inputs.applied.recv() => self.applied(applied),
                Some(question) = inputs.questions.recv() => self.answer(question),
                Ok(()) = inputs.lacks.changed() => {
                    let dropped = schema::dropped(&inputs.lacks.borrow_and_update());
                    self.dropped(dropped);
                }
                () = sleep_until(look) => self.look(),
                () = sleep_until(evaluate) => self.evaluate(),
                _ = tick.tick() => self.tick(),
            }
        }
    }

    /// Begins a term, or ends one.
    fn begin(&mut self, term: lease::Term) {
        self.term = self.term.following();
        self.effects.begin(self.term);
        self.forget_sidecars();
        self.schedules = Schedules::new(&self.fleets, self.effects.autoscaling, self.now());
        // Dropping the channels ends every stream of the term.
        self.leading = term.map(Leading::new);
        self.debounce.touch(self.now());
        self.metrics.proxies.set(0);
        self.metrics.cut_off.set(0);
        self.metrics.outstanding.set(0);
        self.metrics.not_ready.clear();
        self.count_fleets();
    }

    fn seen(&mut self, (source, seen): Message) {
        let left_out = self.cache.left_out;
        let touched = self.cache.apply(&source, seen);
        if self.cache.left_out != left_out {
            if left_out == 0 {
                tracing::warn!(?source, "there are more objects than --max-objects: the operator ignores the others");
            }
            self.metrics.left_out.set(i64::try_from(self.cache.left_out).unwrap_or(i64::MAX));
        }
        let now = self.now();
        self.schedules.seen(&touched, &self.cache, self.leading.is_some(), now);
        if self.leading.is_some() {
            let grown = touched.grown.iter().filter_map(|grown| of_growth(grown, &self.cache));
            self.effects.run_all(grown.map(Effect::Event));
        }
        for key in &touched.changes.forwards {
            let sidecar =
                self.cache.world.forwards.get(key).and_then(|forward| forward.spec.placement.sidecar.as_ref());
            self.selectors.set(key, sidecar.map(|sidecar| &sidecar.selector));
        }
        if touched.synced || !touched.changes.is_empty() || !touched.proxy_pods.is_empty() {
            self.debounce.touch(now);
        }
        self.touched.absorb(touched);
        // A replica that is ready stays ready: a relist only delays publishing, and should fail no readiness probe.
        let synced = self.cache.is_synced();
        self.synced.send_if_modified(|now| synced && !std::mem::replace(now, true));
    }

    /// Makes every object report the fields that the API server drops from manifests.
    fn dropped(&mut self, dropped: Dropped) {
        if self.cache.world.dropped == dropped {
            return;
        }
        self.cache.world.dropped = dropped;
        for key in self.cache.gateways() {
            self.schedules.gateways.touch(&key);
        }
        self.touched.changes.all = true;
        self.debounce.touch(self.now());
    }

    /// Translates the changes since the last translation, and publishes the result.
    fn look(&mut self) {
        let now = self.now();
        let is_behind =
            self.leading.as_ref().is_some_and(|leading| leading.known.publisher.is_behind(&leading.known.proxies));
        if !self.debounce.take(is_behind, now) {
            return;
        }
        if self.touched.changes.all || !self.touched.changes.forwards.is_empty() {
            self.follow_namespaces();
        }
        self.metrics.forwards.set(i64::try_from(self.cache.world.forwards.len()).unwrap_or(i64::MAX));
        // Every replica serves the webhook.
        self.api_servers.set(self.cache.world.api_servers().map(|address| address.ip()));
        let Some(leading) = &mut self.leading else {
            // A replica that begins to lead translates everything.
            self.touched = Touched::default();
            return;
        };
        if !self.cache.is_synced() {
            return;
        }
        self.cache.open();
        let touched = leading.known.covered(std::mem::take(&mut self.touched), &self.cache);
        let (moved, update) = leading.take(&touched, &self.cache, &self.metrics, now);
        let now = self.started.elapsed();
        leading.known.note_published(now);
        let looked = Looked { touched, update, moved };
        self.schedules.looked(looked, &self.cache.world, &leading.known.translator, now);
    }

    /// Watches pods only in namespaces with sidecar forwards.
    fn follow_namespaces(&mut self) {
        let wanted: BTreeSet<String> = self.cache.sidecar_namespaces().cloned().collect();
        let watched = self.cache.watched_pods();
        for namespace in wanted.difference(&watched) {
            let source = self.watches.watch_pods(namespace);
            self.cache.expect(&source);
        }
        for namespace in watched.difference(&wanted) {
            self.watches.unwatch_pods(namespace);
            let forgotten = self.cache.forget_pods(namespace);
            self.touched.absorb(forgotten);
        }
    }

    fn evaluate(&mut self) {
        let now = self.now();
        let Some(leading) = self.leading.as_ref().filter(|leading| leading.known.began().is_some()) else {
            self.schedules.statuses.pause();
            return;
        };
        let time = wall_clock();
        let effects = self.schedules.evaluate(&leading.known.view(&self.cache, &time), self.effects.room(), now);
        let statuses = &self.schedules.statuses;
        self.metrics.outstanding.set(i64::try_from(statuses.outstanding()).unwrap_or(i64::MAX));
        for (reason, count) in statuses.unready() {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            self.metrics.not_ready.get_or_create(&[("reason", reason.clone())]).set(count);
        }
        self.effects.run_all(effects);
    }

    fn tick(&mut self) {
        let now = self.now();
        for source in self.cache.due_lists(now) {
            tracing::info!(?source, "there is room for objects that were ignored: listing this kind again");
            self.watches.list_again(&source);
        }
        let Some(leading) = self.leading.as_ref().filter(|leading| leading.known.began().is_some()) else { return };
        if !self.cache.is_synced() {
            return;
        }
        self.metrics.proxies.set(i64::try_from(leading.known.proxies.connected_count()).unwrap_or(i64::MAX));
        let is_other = self.trusted.has_changed().unwrap_or(false);
        let trusted = self.trusted.borrow_and_update().clone();
        let time = wall_clock();
        let view = leading.known.view(&self.cache, &time);
        let means = (self.effects.room(), self.effects.deletion_costs.is_some());
        let Due { effects, cut_off } = self.schedules.tick(&view, (&trusted, is_other), means, now);
        if let Some(counted) = cut_off {
            self.cut_off(counted);
        }
        self.effects.run_all(effects);
        self.count_fleets();
        self.count_sidecars(now);
    }
}

/// The current time for timestamps, RFC 3339, whole seconds.
fn wall_clock() -> String {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}
