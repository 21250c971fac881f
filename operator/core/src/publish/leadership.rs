//! The state of a leader: translations, published snapshots and the reports of proxies.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    publish::publisher::{Publisher, Step},
    schedule::View,
    status::{
        claims::Refusals,
        fleets::{Fleets, Moved},
        proxies::Proxies,
    },
    translate::{groups::Group, program::Snapshot, translator::Translator, update::Update},
    world::{
        ObjectKey,
        cache::{Cache, Touched},
        changes::Changes,
        proxy_id::ProxyId,
    },
};

/// The state of a leader, for one term.
#[derive(Debug)]
pub struct Leadership {
    /// The published snapshots, and the streams that follow them.
    pub publisher: Publisher,
    /// The translation of the world.
    pub translator: Translator,
    /// The pods of groups.
    pub fleets: Fleets,
    /// The reports of proxies.
    pub proxies: Proxies,
    /// The writes for drained claims that the API server refuses.
    pub refusals: Refusals,
    /// When the first translation was published; `None` before that.
    began: Option<Duration>,
    /// Proxies that keep listeners of unreadable forwards, with those forwards.
    exempt: BTreeMap<ProxyId, BTreeSet<ObjectKey>>,
}

/// The changes of a publication.
#[derive(Debug)]
pub struct Publication {
    /// The groups whose pods changed.
    pub moved: Moved,
    /// Number of snapshots that were published.
    pub snapshots: u64,
    /// The changes to streams.
    pub steps: Vec<Step>,
}

impl Leadership {
    /// The state at the start of the term of this name.
    #[must_use]
    pub fn new(term: String) -> Self {
        Self {
            publisher: Publisher::new(term),
            translator: Translator::default(),
            fleets: Fleets::default(),
            proxies: Proxies::default(),
            refusals: Refusals::default(),
            began: None,
            exempt: BTreeMap::new(),
        }
    }

    /// The state that schedules decide on.
    #[must_use]
    pub fn view<'a>(&'a self, cache: &'a Cache, wall_clock: &'a str) -> View<'a> {
        let Self { translator, fleets, proxies, refusals, .. } = self;
        View { cache, translator, fleets, proxies, refusals, wall_clock }
    }

    /// When the first translation was published; `None` before.
    #[must_use]
    pub fn began(&self) -> Option<Duration> {
        self.began
    }

    /// Records that a translation has been published.
    pub fn note_published(&mut self, now: Duration) {
        self.began.get_or_insert(now);
    }

    /// Returns the scope of the next translation. The first translation of a term covers everything.
    #[must_use]
    pub fn covered(&self, mut touched: Touched, cache: &Cache) -> Touched {
        if self.began.is_none() {
            touched.changes = Changes::all();
            touched.proxy_pods = cache.proxy_pods.keys().cloned().collect();
        }
        touched
    }

    /// Translates the touched objects.
    pub fn translate(&mut self, touched: &Touched, cache: &Cache) -> Update {
        let version = self.publisher.next_version();
        self.translator.update(&cache.world, &touched.changes, &version)
    }

    /// Publishes an update of the translation.
    pub fn publish(&mut self, touched: &Touched, update: &Update, cache: &Cache, now: Duration) -> Publication {
        let (mut steps, mut snapshots) = (Vec::new(), 0);
        let moved = self.fleets.update(touched, update, cache, &self.translator);
        for (group, snapshot) in update.programs.iter().filter_map(|it| Some((it, self.translator.snapshot(it)?))) {
            snapshots += 1;
            self.publisher.publish(group, Some(snapshot.clone()), &mut steps);
        }
        self.end_streams(touched, cache, now, &mut steps);
        for pod in self.fleets.take_placed() {
            let group = self.fleets.group_of(&pod, &self.translator);
            let proxy = ProxyId::Pod(pod.clone());
            if self.publisher.place(&proxy, group, &mut steps) {
                self.proxies.moved(&proxy);
            }
        }
        // Unpublish after pods have moved, so that no proxy sees an empty configuration.
        for group in update.programs.iter().filter(|group| self.translator.snapshot(group).is_none()) {
            self.publisher.publish(group, None, &mut steps);
        }
        Publication { moved, snapshots, steps }
    }

    /// Ends the streams of pods that are gone, and of proxies whose exemption no longer holds.
    fn end_streams(&mut self, touched: &Touched, cache: &Cache, now: Duration, steps: &mut Vec<Step>) {
        for pod in cache.gone_pods(touched) {
            let proxy = ProxyId::Pod(pod.clone());
            self.publisher.forget(&proxy, steps);
            self.proxies.gone(&proxy);
            self.exempt.remove(&proxy);
        }
        let outdated = |(_, forwards): &(&ProxyId, &BTreeSet<ObjectKey>)| !cache.are_exempt(forwards);
        let outdated: Vec<ProxyId> = self.exempt.iter().filter(outdated).map(|(proxy, _)| proxy.clone()).collect();
        for proxy in outdated {
            self.publisher.remove(&proxy, steps);
            self.proxies.ended(&proxy, now);
            self.exempt.remove(&proxy);
        }
    }

    /// The group of a proxy.
    #[must_use]
    pub fn group_of(&self, proxy: &ProxyId) -> Option<&Group> {
        self.fleets.group_of(proxy.pod()?, &self.translator)
    }

    /// The snapshot that the group of a proxy should run.
    #[must_use]
    pub fn runs(&self, proxy: &ProxyId) -> Option<&Snapshot> {
        let group = self.group_of(proxy)?;
        self.translator.snapshot(group).map(|snapshot| &**snapshot)
    }

    /// Opens a stream of a proxy, which keeps the listeners of the exempt forwards. Returns where the stream begins.
    pub fn connect(&mut self, proxy: &ProxyId, id: u64, exempt: BTreeSet<ObjectKey>, now: Duration) -> Arc<Snapshot> {
        let group = proxy.pod().and_then(|pod| self.fleets.group_of(pod, &self.translator));
        let begins = self.publisher.connect(proxy, id, group);
        // The proxy may reconnect before the end of its earlier stream is noticed.
        self.proxies.ended(proxy, now);
        self.proxies.connected(proxy);
        // An exemption of an earlier stream does not apply to this stream.
        if exempt.is_empty() {
            self.exempt.remove(proxy);
        } else {
            self.exempt.insert(proxy.clone(), exempt);
        }
        begins
    }

    /// Records that a stream ended. Returns whether it was the newest stream of its proxy; an older one is ignored.
    pub fn disconnect(&mut self, proxy: &ProxyId, id: u64, now: Duration, steps: &mut Vec<Step>) -> bool {
        let is_newest = self.publisher.disconnect(proxy, id, steps);
        if is_newest {
            self.proxies.ended(proxy, now);
        }
        is_newest
    }
}
