//! Logs of a listener that were begun together.

use durable::{Figures, Lanes, Store};
use tokio::task::JoinHandle;

use super::removal::Removal;
use crate::{
    core::durable::{
        arrivals::{Age, Arrivals},
        drained::Drained,
        lost_stream::LostStream,
    },
    files::Permit,
    process::Process,
};

/// Files of a log that are open at once, with that of its sink; connections take theirs as sessions do.
const FILES: usize = 16;

/// Logs that were begun together.
pub(super) struct Generation {
    /// One for each lane.
    pub(super) lanes: Lanes,
    /// The server whose stream that is; `None`: they are on disk.
    pub(super) server: Option<String>,
    /// Events of each log that were logged.
    pub(super) told: Vec<u64>,
    /// When the messages of each log came.
    arrivals: Vec<Arrivals>,
    /// How long its server has failed.
    lost: LostStream,
    /// The task that closes it, once its sink has all. What its sink has is saved then: after a crash it would be sent
    /// again, behind what is sent next.
    pub(super) closing: Option<JoinHandle<()>>,
    _files: Permit,
}

impl Generation {
    pub(super) fn new(lanes: Lanes, server: Option<String>, process: &Process) -> Self {
        let (told, arrivals) = (vec![0; lanes.count()], vec![Arrivals::default(); lanes.count()]);
        let files = process.files.take_anyway(FILES.saturating_mul(lanes.count()));
        Self { lanes, server, told, arrivals, lost: LostStream::default(), closing: None, _files: files }
    }

    /// How many seconds the oldest message of each log has waited at second `now`, which is `millis` of the machine's clock.
    pub(super) fn ages(&mut self, now: u64, millis: u64) -> Vec<u64> {
        let is_stream = self.server.is_some();
        let age = |(store, arrivals): (&Store, &mut Arrivals)| {
            let figures = store.figures();
            arrivals.see(figures.next, now);
            let of_clock = figures.oldest_age(millis).unwrap_or_default().as_secs();
            match arrivals.age(figures.cursor, now) {
                _ if figures.backlog() == 0 => 0,
                // Others may have put it into the stream before.
                Age::Known(seconds) if !is_stream => seconds,
                Age::Known(seconds) | Age::AtLeast(seconds) => seconds.max(of_clock),
            }
        };
        self.lanes.stores().zip(&mut self.arrivals).map(age).collect()
    }

    /// Whether it stays open while the listener changes to a store of this server, or of the disk: the stream of another
    /// server is in nobody's way, and nobody else knows of it.
    pub(super) fn stays(&self, server: Option<&str>) -> bool {
        let is_other = self.server.as_deref().is_some_and(|own| Some(own) != server);
        is_other && !self.lanes.stores().any(Store::has_ended)
    }

    /// The figures of each log, whose folder may be removed. That of a stream is nowhere.
    pub(super) fn figures<'a>(&'a self, removal: &'a Removal) -> impl Iterator<Item = Figures> + 'a {
        let figures = self.lanes.stores().map(Store::figures);
        figures.map(move |figures| if self.server.is_none() { removal.left(figures) } else { figures })
    }

    /// Once a second: whether it is a stream that has failed for too long to wait for it.
    pub(super) fn is_lost(&mut self) -> bool {
        let figures: Vec<Figures> = self.lanes.stores().map(Store::figures).collect();
        let fails = self.server.is_some() && figures.iter().any(|figures| figures.failure.is_some());
        self.lost.see(fails, figures.iter().map(|figures| figures.cursor).sum())
    }

    /// Messages that the sink does not have.
    pub(super) fn backlog(&self) -> u64 {
        self.lanes.stores().map(|store| store.figures().backlog()).fold(0, u64::saturating_add)
    }

    /// Messages that its stream did not have when it was closed.
    pub(super) fn unpublished(&self) -> u64 {
        self.lanes.stores().map(|store| store.figures().dropped.unpublished).fold(0, u64::saturating_add)
    }

    /// What it has left, once its drain has ended.
    pub(super) fn drained(&self) -> Drained {
        Drained { backlog: self.backlog(), unpublished: self.unpublished() }
    }

    /// Whether the sink has all of it.
    pub(super) fn is_done(&self) -> bool {
        self.lanes.stores().all(|store| store.figures().backlog() == 0)
    }
}

/// A stream that failed for too long, so that later messages are sent without what it has. To close it takes seconds where
/// its server does not answer, and only then is it known what it does not have.
pub(super) struct GivenUp {
    generation: Generation,
    /// Messages that stay in it, as far as is known.
    messages: u64,
}

/// What a stream that was given up costs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Loss {
    /// Its server.
    pub(super) server: String,
    /// Messages that stay in it, as far as is known.
    pub(super) messages: u64,
    /// Messages that it does not have, and that are lost.
    pub(super) unpublished: u64,
}

impl GivenUp {
    /// The stores of this generation are closed by this task.
    pub(super) fn new(mut generation: Generation, closing: JoinHandle<()>) -> Self {
        if let Some(draining) = generation.closing.replace(closing) {
            draining.abort();
        }
        let messages = generation.backlog();
        Self { generation, messages }
    }

    /// What its stores have counted. Nothing waits in them any more.
    pub(super) fn figures(&self) -> Figures {
        let mut all = Figures::default();
        for store in self.generation.lanes.stores() {
            all.add(&store.figures());
        }
        (all.cursor, all.bytes, all.oldest_received_millis, all.failure) = (all.next, 0, None, None);
        all
    }

    /// Waits until it is closed.
    pub(super) async fn closed(&mut self) {
        if let Some(closing) = self.generation.closing.take() {
            // It has ended in either case.
            let _ = closing.await;
        }
    }

    /// What it costs, once it is closed.
    pub(super) fn loss(&self) -> Option<Loss> {
        let Generation { server, closing, .. } = &self.generation;
        let is_closed = closing.as_ref().is_none_or(JoinHandle::is_finished);
        let (server, messages) = (server.clone().unwrap_or_default(), self.messages);
        is_closed.then(|| Loss { server, messages, unpublished: self.generation.unpublished() })
    }
}
