//! The turn of a direction among the streams of its worker.

use std::task::{Context, Poll, ready};

use super::{Direction, End, Phase, poll_source};
use crate::worker::Worker;

impl Direction {
    /// Whether the direction waits for its turn.
    #[must_use]
    pub fn waits_for_turn(&self) -> bool {
        self.streamed.as_ref().is_some_and(|streamed| streamed.place.is_some())
    }

    /// Waits for a turn if this direction streams and may have bytes to move, and the streams of the worker have used
    /// up theirs.
    ///
    /// A direction that can move nothing waits only for its ends: its place would be lacking for others, and a silent
    /// session that gets one at each poll would never be idle.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>, worker: &Worker, (from, to): (&End, &End)) -> Poll<()> {
        if let Some(streamed) = &mut self.streamed
            && let Some(place) = streamed.place
        {
            if worker.turns.still_waits(place, cx.waker()) {
                return Poll::Pending;
            }
            streamed.place = None;
            return Poll::Ready(());
        }
        if !self.streaming || worker.turns.has_room() {
            return Poll::Ready(());
        }
        if self.is_holding() {
            ready!(self.poll_sink(cx, to));
        } else if self.phase != Phase::Open {
            // The remaining work moves no bytes.
            return Poll::Ready(());
        } else if !from.read_anyway.get() && poll_source(cx, from).is_pending() {
            // Pipes are lent only to directions that stream now.
            self.release(worker);
            return Poll::Pending;
        }
        self.streamed.get_or_insert_default().place = Some(worker.turns.wait(cx.waker()));
        Poll::Pending
    }
}
