//! The open logs of a listener: those that take messages, and those of earlier numbers of lanes or of another store,
//! whose messages are sent first.

use std::{
    collections::{BTreeMap, VecDeque},
    future::pending,
    iter::once,
    mem::{replace, take},
    time::Duration,
};

use durable::{Figures, Lanes, Presence, Store, StoreEvent};
use durable_core::lanes::{Bytes, part};
use tokio::{
    task::{JoinSet, spawn_local},
    time::sleep,
};

use super::{
    generation::{Generation, GivenUp, Loss},
    machine,
    removal::Removal,
};
use crate::process::Process;

/// Pause between two looks at a stream that may fail.
const LOOK: Duration = Duration::from_secs(1);

/// The opened stores of a listener.
pub(super) struct Opened {
    /// The stores that take messages.
    pub(super) present: Lanes,
    /// The server of their stream; `None`: these stores are on disk.
    pub(super) server: Option<String>,
    /// Stores on disk of earlier numbers of lanes, or from before the stream. Their messages are sent first.
    pub(super) former: VecDeque<Lanes>,
    /// A handle that tells whether their folder was removed; `None`: there is no folder.
    pub(super) presence: Option<Presence>,
    /// The pod or machine that takes the messages, or took them.
    pub(super) machine: String,
    /// Repairs before the stores were open. The stores report later ones.
    pub(super) repaired: Vec<StoreEvent>,
    /// Bytes of the files in their folder that no store counts.
    pub(super) left: u64,
}

impl From<Store> for Opened {
    fn from(store: Store) -> Self {
        let (present, former, machine) = (store.into(), VecDeque::new(), machine::name());
        Self { present, server: None, former, presence: None, machine, repaired: Vec::new(), left: 0 }
    }
}

/// The logs of a listener. The first generation sends, and the last one takes messages.
pub(super) struct Generations {
    /// Earlier generations, in the order in which they were begun. They take no messages.
    former: VecDeque<Generation>,
    present: Generation,
    /// The streams that were given up, until they are closed and their loss is reported.
    given_up: Vec<GivenUp>,
    /// The figures of closed generations.
    past: Figures,
    /// Bytes of the files in their folder that neither open nor closed generations count.
    left: u64,
    /// Repairs before they were open that are not reported yet.
    repaired: Vec<StoreEvent>,
    /// Whether there was a generation before the present one.
    is_shared: bool,
}

/// How many seconds messages have waited.
pub(super) struct Ages {
    /// The age of the oldest message of each log that sends.
    pub(super) sending: Vec<u64>,
    /// The age of the oldest message of all.
    pub(super) oldest: u64,
}

impl Generations {
    pub(super) fn new(opened: Opened, process: &Process) -> Self {
        let Opened { present, server, former, repaired, left, .. } = opened;
        for store in former.iter().flat_map(Lanes::stores) {
            store.stop();
        }
        let is_shared = !former.is_empty();
        Self {
            former: former.into_iter().map(|lanes| Generation::new(lanes, None, process)).collect(),
            present: Generation::new(present, server, process),
            given_up: Vec::new(),
            past: Figures::default(),
            left,
            repaired,
            is_shared,
        }
    }

    /// Replaces the stores by those that were opened. Streams of other servers stay, and all stores send in the order
    /// in which they took messages.
    pub(super) fn change(&mut self, opened: Opened, process: &Process) {
        let before = replace(self, Self::new(opened, process));
        let server = self.present.server.as_deref();
        let (mut former, mut on_disk) = (VecDeque::new(), take(&mut self.former));
        self.given_up = before.given_up;
        // The last loss may not have been read yet.
        self.past.dropped.unpublished = before.past.dropped.unpublished;
        for generation in before.former.into_iter().chain(once(before.present)) {
            if generation.server.is_none() {
                // Stores on disk were opened again, and keep their turn.
                former.append(&mut on_disk);
            } else if generation.stays(server) {
                generation.lanes.stores().for_each(Store::stop);
                former.push_back(generation);
            } else {
                self.past.dropped.unpublished += generation.unpublished();
            }
        }
        former.append(&mut on_disk);
        self.former = former;
    }

    /// Handles to stores that are closed before the listener has a store of this server, or of the disk.
    pub(super) fn handles_without(&self, server: Option<&str>) -> Vec<Store> {
        let close = self.all().filter(|generation| !generation.stays(server));
        close.flat_map(|generation| generation.lanes.stores()).cloned().collect()
    }

    /// Whether all logs are on servers, so that they survive this process and its machine.
    pub(super) fn is_stream(&self) -> bool {
        self.all().all(|generation| generation.server.is_some())
    }

    fn all(&self) -> impl Iterator<Item = &Generation> {
        self.former.iter().chain(once(&self.present))
    }

    /// The server of each generation, in the order in which they send.
    #[cfg(test)]
    pub(super) fn servers(&self) -> Vec<Option<&str>> {
        self.all().map(|generation| generation.server.as_deref()).collect()
    }

    /// The stores that take messages.
    pub(super) const fn present(&self) -> &Lanes {
        &self.present.lanes
    }

    /// The stores that send.
    pub(super) fn sending(&self) -> &Lanes {
        &self.former.front().unwrap_or(&self.present).lanes
    }

    /// Whether the logs that take messages send as well.
    pub(super) fn is_one(&self) -> bool {
        self.former.is_empty()
    }

    fn stores(&self) -> impl Iterator<Item = &Store> {
        self.all().flat_map(|generation| generation.lanes.stores())
    }

    /// Handles to all stores.
    pub(super) fn handles(&self) -> Vec<Store> {
        self.stores().cloned().collect()
    }

    /// The figures of all, except events, if the folder is there.
    #[cfg(test)]
    pub(super) fn figures(&self) -> Figures {
        let mut all = self.past.clone();
        for store in self.stores() {
            all.add(&store.figures());
        }
        for given_up in &self.given_up {
            all.add(&given_up.figures());
        }
        all
    }

    /// The figures of all, except events. In a folder that was removed nothing waits any more, unlike in streams.
    pub(super) fn figures_beside(&self, removal: &Removal) -> Figures {
        let mut all = removal.left(self.past.clone());
        for figures in self.all().flat_map(|generation| generation.figures(removal)) {
            all.add(&figures);
        }
        for given_up in &self.given_up {
            all.add(&given_up.figures());
        }
        all
    }

    /// The figures of each log that sends. The folder may be removed.
    pub(super) fn sending_figures<'a>(&'a self, removal: &'a Removal) -> impl Iterator<Item = Figures> + 'a {
        self.former.front().unwrap_or(&self.present).figures(removal)
    }

    /// Whether some logs are on disk.
    pub(super) fn has_folder(&self) -> bool {
        self.all().any(|generation| generation.server.is_none())
    }

    /// Messages on disk that the sink does not have.
    pub(super) fn disk_backlog(&self) -> u64 {
        let on_disk = self.all().filter(|generation| generation.server.is_none());
        on_disk.flat_map(|generation| generation.lanes.stores()).map(|store| store.figures().backlog()).sum()
    }

    /// By server, messages that the sink does not have, and those that the stream did not have when it was closed.
    pub(super) fn waiting(&self) -> BTreeMap<Option<&str>, (u64, u64)> {
        let mut waiting = BTreeMap::<Option<&str>, (u64, u64)>::new();
        for generation in self.all() {
            let (messages, unpublished) = waiting.entry(generation.server.as_deref()).or_default();
            *messages += generation.backlog();
            *unpublished += generation.unpublished();
        }
        waiting
    }

    /// Bytes of all logs on the disk, with closed ones and other files in their folder.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.stores().map(Store::disk_bytes).fold(self.past_bytes(), u64::saturating_add)
    }

    /// Bytes on the disk of closed logs, and of other files in their folder.
    pub(super) const fn past_bytes(&self) -> u64 {
        self.past.bytes.saturating_add(self.past.dead_bytes).saturating_add(self.left)
    }

    /// Whether the `wanted` number of lanes differs from the present one, and can have logs now: the sink has all
    /// messages from before the present logs, and these leave enough of the bytes of the listener.
    pub(super) fn may_change(&self, wanted: usize, bytes: Bytes) -> bool {
        let lanes = self.present();
        let present = || lanes.stores().map(|store| store.figures().bytes).fold(0, u64::saturating_add);
        self.is_one() && lanes.count() != wanted && bytes.fit(present(), lanes.count(), wanted)
    }

    /// Once a second: the logs that take messages share the bytes that earlier ones leave of those of the listener.
    /// Each has no less than the least.
    pub(super) fn share(&self, bytes: Bytes) {
        if !self.is_shared {
            return;
        }
        let former = self.former.iter().filter(|generation| generation.server.is_none());
        let former = former.flat_map(|generation| generation.lanes.stores());
        let earlier = former.map(|store| store.figures().bytes).fold(self.past.bytes, u64::saturating_add);
        let lanes = self.present();
        for store in lanes.stores() {
            store.bound(part(bytes.all, earlier, lanes.count(), bytes.least));
        }
    }

    /// Once a second: how long messages have waited at second `now`, which is `millis` of the machine's clock.
    pub(super) fn ages(&mut self, now: u64, millis: u64) -> Ages {
        let former: Vec<Vec<u64>> = self.former.iter_mut().map(|generation| generation.ages(now, millis)).collect();
        let present = self.present.ages(now, millis);
        let oldest = former.iter().flatten().chain(&present).max().copied().unwrap_or(0);
        Ages { sending: former.into_iter().next().unwrap_or(present), oldest }
    }

    /// Whether a store was closed, or its thread has ended by itself.
    pub(super) fn has_ended(&self) -> bool {
        let open = self.all().filter(|generation| generation.closing.is_none());
        open.flat_map(|generation| generation.lanes.stores()).any(Store::has_ended)
    }

    /// The events of the stores since the last call.
    pub(super) fn news(&mut self) -> Vec<StoreEvent> {
        let mut news = take(&mut self.repaired);
        for generation in self.former.iter_mut().chain(once(&mut self.present)) {
            for (store, told) in generation.lanes.stores().zip(&mut generation.told) {
                let events = store.figures().events;
                news.extend(events.after(*told).cloned());
                *told = events.count();
            }
        }
        news
    }

    /// Takes no messages any more.
    pub(super) fn stop(&self) {
        self.stores().for_each(Store::stop);
    }

    /// Once a second: closes the first generation, if others follow it and its sink has all messages. Returns whether
    /// others send from now on. Only the server knows whether the sink has all of a stream, which `drain` waits for,
    /// unless the server fails for too long.
    pub(super) fn advance(&mut self) -> bool {
        let Some(first) = self.former.front_mut() else { return false };
        if first.is_lost() {
            self.give_up();
            return true;
        }
        match &first.closing {
            None if first.server.is_some() || first.is_done() => {
                let stores = first.lanes.stores().cloned().collect();
                // Between logs on disk, the last part stays, as the search for damage reads it.
                let is_on_disk = first.server.is_none() && self.present.server.is_none();
                let closing =
                    async move { if is_on_disk { close(stores).await } else { drain(stores, Duration::MAX).await } };
                first.closing = Some(spawn_local(closing));
                false
            }
            Some(closing) if closing.is_finished() => {
                first.closing = None;
                self.pass()
            }
            _ => false,
        }
    }

    /// Waits until the first generation is given up, as it is a stream that has failed for too long. Never ends if no
    /// other follows it.
    pub(super) async fn until_given_up(&mut self) {
        loop {
            sleep(LOOK).await;
            let Some(first) = self.former.front_mut() else { return pending().await };
            if first.is_lost() {
                return self.give_up();
            }
        }
    }

    /// Waits until the streams that were given up are closed.
    pub(super) async fn until_closed(&mut self) {
        for given_up in &mut self.given_up {
            given_up.closed().await;
        }
    }

    /// Gives up the first generation, whose messages stay in its stream.
    fn give_up(&mut self) {
        let Some(first) = self.former.pop_front() else { return };
        let closing = spawn_local(close(first.lanes.stores().cloned().collect()));
        self.given_up.push(GivenUp::new(first, closing));
    }

    /// The losses from streams that were given up, and closed since the last call.
    pub(super) fn losses(&mut self) -> Vec<Loss> {
        let (past, mut losses) = (&mut self.past, Vec::new());
        self.given_up.retain(|given_up| {
            let Some(loss) = given_up.loss() else { return true };
            past.add(&given_up.figures());
            losses.push(loss);
            false
        });
        losses
    }

    /// Like [`Self::pass`], after a drain has ended: a stream that lacks messages stays.
    pub(super) fn pass_drained(&mut self) -> bool {
        self.former.front().is_some_and(|first| first.drained().is_complete()) && self.pass()
    }

    /// Drops the first generation, which is closed, if others follow it and its sink has all messages. Returns whether
    /// that is so.
    pub(super) fn pass(&mut self) -> bool {
        if !self.former.front().is_some_and(Generation::is_done) {
            return false;
        }
        if let Some(first) = self.former.pop_front() {
            for store in first.lanes.stores() {
                let mut figures = store.figures();
                if first.server.is_some() {
                    figures.bytes = 0;
                }
                self.past.add(&figures);
            }
            (self.past.oldest_received_millis, self.past.failure) = (None, None);
        }
        true
    }
}

/// Closes these stores, all at the same time.
pub(super) async fn close(stores: Vec<Store>) {
    let mut closing = JoinSet::new();
    for store in stores {
        closing.spawn_local(async move {
            // The store may be closed already.
            let _ = store.close().await;
        });
    }
    while closing.join_next().await.is_some() {}
}

/// Waits up to `within` until the sink has all messages of these stores, and closes them.
pub(super) async fn drain(stores: Vec<Store>, within: Duration) {
    let mut draining = JoinSet::new();
    for store in stores {
        draining.spawn_local(async move {
            // The store may be closed already.
            let _ = store.drain(within).await;
        });
    }
    while draining.join_next().await.is_some() {}
}
