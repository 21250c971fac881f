//! State of one term: what is translated, published and heard of proxies while this replica leads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use operator_core::{
    Cache, ObjectKey, Proxies, Touched, Translator, Update,
    schedule::View,
    status::fleets::{Fleets, Moved},
};

use crate::{
    outputs::publish::{Deltas, Publisher},
    platform::metrics::Metrics,
};

/// All that one term knows and tells.
pub(super) struct Leading {
    pub(super) publisher: Publisher,
    pub(super) deltas: Arc<Deltas>,
    pub(super) translator: Translator,
    /// A translation has been published in this term.
    pub(super) published: bool,
    pub(super) fleets: Fleets,
    pub(super) proxies: Proxies,
    /// Proxies that were let keep listeners of forwards which nobody can read.
    pub(super) exempt: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
}

impl Leading {
    pub(super) fn new(term: String) -> Self {
        Self {
            publisher: Publisher::new(term),
            deltas: Arc::default(),
            translator: Translator::default(),
            published: false,
            fleets: Fleets::default(),
            proxies: Proxies::default(),
            exempt: BTreeMap::new(),
        }
    }

    /// All that is known now.
    pub(super) fn view<'a>(&'a self, cache: &'a Cache, wall_clock: &'a str) -> View<'a> {
        View { cache, translator: &self.translator, fleets: &self.fleets, proxies: &self.proxies, wall_clock }
    }

    /// Translates what was touched, publishes what it means and tells streams; gives what became of the pods of groups, and
    /// what the translation did.
    pub(super) fn take(&mut self, touched: &Touched, cache: &Cache, metrics: &Metrics) -> (Moved, Update) {
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
        self.end_streams(touched, cache);
        for pod in self.fleets.take_placed() {
            if self.publisher.place(&pod, self.fleets.group_of(&pod, &self.translator)) {
                self.proxies.moved(&pod);
            }
        }
        // Last, when nobody is of it any more: its pods have never been told to run nothing.
        for group in update.programs.iter().filter(|group| self.translator.snapshot(group).is_none()) {
            self.publisher.publish(group, None);
        }
        metrics.publish.observe(started.elapsed().as_secs_f64());
        (moved, update)
    }

    /// Pods that are gone have no stream any more.
    fn end_streams(&mut self, touched: &Touched, cache: &Cache) {
        for pod in touched.proxy_pods.iter().chain(&touched.changes.pods).filter(|pod| cache.pod(pod).is_none()) {
            self.publisher.forget(pod);
            self.proxies.gone(pod);
            self.exempt.remove(pod);
        }
        // A forward that can be read now, or is gone: only a proxy that says what it holds can be brought in line.
        let is_exempt =
            |key: &ObjectKey| cache.world.unreadable.contains_key(key) && !cache.world.forwards.contains_key(key);
        let outdated = |(_, forwards): &(&ObjectKey, &BTreeSet<ObjectKey>)| !forwards.iter().all(is_exempt);
        let outdated: Vec<ObjectKey> = self.exempt.iter().filter(outdated).map(|(pod, _)| pod.clone()).collect();
        for pod in outdated {
            self.publisher.remove(&pod);
            self.proxies.gone(&pod);
            self.exempt.remove(&pod);
        }
    }
}
