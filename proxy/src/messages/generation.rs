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
    /// The stores, one for each lane.
    pub(super) lanes: Lanes,
    /// The server of their stream; `None`: the logs are on disk.
    pub(super) server: Option<String>,
    /// How many events of each log were logged.
    pub(super) told: Vec<u64>,
    /// The arrival times of each log's messages.
    arrivals: Vec<Arrivals>,
    /// How long the server has failed.
    lost: LostStream,
    /// The task that closes the generation, once its sink has all messages. Closing saves the cursor: otherwise, after
    /// a crash, messages would be sent again, behind the next ones.
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
                // In a stream, another proxy may have published the message earlier.
                Age::Known(seconds) if !is_stream => seconds,
                Age::Known(seconds) | Age::AtLeast(seconds) => seconds.max(of_clock),
            }
        };
        self.lanes.stores().zip(&mut self.arrivals).map(age).collect()
    }

    /// Whether the generation stays open while the listener changes to a store of this server, or of the disk: the
    /// stream of another server is in nobody's way, and nobody else knows of it.
    pub(super) fn stays(&self, server: Option<&str>) -> bool {
        let is_other = self.server.as_deref().is_some_and(|own| Some(own) != server);
        is_other && !self.lanes.stores().any(Store::has_ended)
    }

    /// The figures of each log, whose folder may be removed. A stream has no folder.
    pub(super) fn figures<'a>(&'a self, removal: &'a Removal) -> impl Iterator<Item = Figures> + 'a {
        let figures = self.lanes.stores().map(Store::figures);
        figures.map(move |figures| if self.server.is_none() { removal.left(figures) } else { figures })
    }

    /// Once a second: whether the generation is a stream that has failed for too long to wait for it.
    pub(super) fn is_lost(&mut self) -> bool {
        let figures: Vec<Figures> = self.lanes.stores().map(Store::figures).collect();
        let fails = self.server.is_some() && figures.iter().any(|figures| figures.failure.is_some());
        self.lost.see(fails, figures.iter().map(|figures| figures.cursor).sum())
    }

    /// Messages that the sink does not have.
    pub(super) fn backlog(&self) -> u64 {
        self.lanes.stores().map(|store| store.figures().backlog()).fold(0, u64::saturating_add)
    }

    /// Messages that the stream did not have when it was closed.
    pub(super) fn unpublished(&self) -> u64 {
        self.lanes.stores().map(|store| store.figures().dropped.unpublished).fold(0, u64::saturating_add)
    }

    /// The messages that are left once the drain has ended.
    pub(super) fn drained(&self) -> Drained {
        Drained { backlog: self.backlog(), unpublished: self.unpublished() }
    }

    /// Whether the sink has all messages.
    pub(super) fn is_done(&self) -> bool {
        self.lanes.stores().all(|store| store.figures().backlog() == 0)
    }
}

/// A stream that failed for too long, so that later messages are sent without waiting for its own. Closing it takes
/// seconds if its server does not answer, and only then is it known which messages it does not have.
pub(super) struct GivenUp {
    generation: Generation,
    /// Messages that stay in the stream, as far as is known.
    messages: u64,
}

/// The loss from a stream that was given up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Loss {
    /// The server of the stream.
    pub(super) server: String,
    /// Messages that stay in the stream, as far as is known.
    pub(super) messages: u64,
    /// Messages that the stream does not have, and that are lost.
    pub(super) unpublished: u64,
}

impl GivenUp {
    /// Gives up a generation, whose stores the task `closing` closes.
    pub(super) fn new(mut generation: Generation, closing: JoinHandle<()>) -> Self {
        if let Some(draining) = generation.closing.replace(closing) {
            draining.abort();
        }
        let messages = generation.backlog();
        Self { generation, messages }
    }

    /// The figures of the stores, in which nothing waits any more.
    pub(super) fn figures(&self) -> Figures {
        let mut all = Figures::default();
        for store in self.generation.lanes.stores() {
            all.add(&store.figures());
        }
        (all.cursor, all.bytes, all.oldest_received_millis, all.failure) = (all.next, 0, None, None);
        all
    }

    /// Waits until the stream is closed.
    pub(super) async fn closed(&mut self) {
        if let Some(closing) = self.generation.closing.take() {
            // The task has ended in either case.
            let _ = closing.await;
        }
    }

    /// The loss, once the stream is closed.
    pub(super) fn loss(&self) -> Option<Loss> {
        let Generation { server, closing, .. } = &self.generation;
        let is_closed = closing.as_ref().is_none_or(JoinHandle::is_finished);
        let (server, messages) = (server.clone().unwrap_or_default(), self.messages);
        is_closed.then(|| Loss { server, messages, unpublished: self.generation.unpublished() })
    }
}
