//! State of one term: translations, published snapshots and reports of proxies while this replica leads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use operator_core::{
    Cache, ObjectKey, Proxies, ProxyId, Touched, Translator, Update,
    schedule::View,
    status::{
        claims::Refusals,
        fleets::{Fleets, Moved},
    },
};

use crate::{
    outputs::publish::{Deltas, Publisher},
    platform::metrics::Metrics,
};

/// State of one term.
pub(super) struct Leading {
    pub(super) publisher: Publisher,
    pub(super) deltas: Arc<Deltas>,
    pub(super) translator: Translator,
    /// A translation has been published in this term.
    pub(super) published: bool,
    /// When the first translation was published.
    pub(super) began: Duration,
    pub(super) fleets: Fleets,
    pub(super) proxies: Proxies,
    /// The writes for drained claims that the API server refuses.
    pub(super) refusals: Refusals,
    /// Proxies that keep listeners of unreadable forwards, with those forwards.
    pub(super) exempt: BTreeMap<ProxyId, BTreeSet<ObjectKey>>,
}

impl Leading {
    pub(super) fn new(term: String) -> Self {
        Self {
            publisher: Publisher::new(term),
            deltas: Arc::default(),
            translator: Translator::default(),
            published: false,
            began: Duration::ZERO,
            fleets: Fleets::default(),
            proxies: Proxies::default(),
            refusals: Refusals::default(),
            exempt: BTreeMap::new(),
        }
    }

    /// The state that schedules decide on.
    pub(super) fn view<'a>(&'a self, cache: &'a Cache, wall_clock: &'a str) -> View<'a> {
        let Self { translator, fleets, proxies, refusals, .. } = self;
        View { cache, translator, fleets, proxies, refusals, wall_clock }
    }

    /// Translates what was touched and publishes the result to streams. Returns the groups whose pods changed, and the
    /// translator's update.
    pub(super) fn take(
        &mut self,
        touched: &Touched,
        cache: &Cache,
        metrics: &Metrics,
        now: Duration,
    ) -> (Moved, Update) {
        let started = std::time::Instant::now();
        let version = self.publisher.next_version();
        let update = self.translator.update(&cache.world, &touched.changes, &version);
        metrics.translation.observe(started.elapsed().as_secs_f64());
        let started = std::time::Instant::now();
        let moved = self.fleets.update(touched, &update, cache, &self.translator);
        for (group, snapshot) in update.programs.iter().filter_map(|it| Some((it, self.translator.snapshot(it)?))) {
            metrics.snapshots.inc();
            self.publisher.publish(group, Some(snapshot.clone()));
        }
        self.end_streams(touched, cache, now);
        for pod in self.fleets.take_placed() {
            let group = self.fleets.group_of(&pod, &self.translator);
            let proxy = ProxyId::Pod(pod.clone());
            if self.publisher.place(&proxy, group) {
                self.proxies.moved(&proxy);
            }
        }
        // Unpublish after pods have moved, so that no proxy sees an empty configuration.
        for group in update.programs.iter().filter(|group| self.translator.snapshot(group).is_none()) {
            self.publisher.publish(group, None);
        }
        metrics.publish.observe(started.elapsed().as_secs_f64());
        (moved, update)
    }

    /// Ends the streams of pods that are gone, and of proxies whose exemption no longer holds.
    fn end_streams(&mut self, touched: &Touched, cache: &Cache, now: Duration) {
        for pod in cache.gone_pods(touched) {
            let proxy = ProxyId::Pod(pod.clone());
            self.publisher.forget(&proxy);
            self.proxies.gone(&proxy);
            self.exempt.remove(&proxy);
        }
        let outdated = |(_, forwards): &(&ProxyId, &BTreeSet<ObjectKey>)| !cache.are_exempt(forwards);
        let outdated: Vec<ProxyId> = self.exempt.iter().filter(outdated).map(|(proxy, _)| proxy.clone()).collect();
        for proxy in outdated {
            self.publisher.remove(&proxy);
            self.proxies.ended(&proxy, now);
            self.exempt.remove(&proxy);
        }
    }
}
