//! The turn of a direction among the streams of its worker.

use std::task::{Context, Poll};

use super::Direction;
use crate::worker::Worker;

impl Direction {
    /// Whether the direction waits for its turn.
    #[must_use]
    pub fn waits_for_turn(&self) -> bool {
        self.place.is_some()
    }

    /// Waits for a turn if this direction streams, and the streams of the worker have used up theirs.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>, worker: &Worker) -> Poll<()> {
        if let Some(place) = self.place {
            if worker.turns.still_waits(place, cx.waker()) {
                return Poll::Pending;
            }
            self.place = None;
            return Poll::Ready(());
        }
        if !self.streaming || worker.turns.has_room() {
            return Poll::Ready(());
        }
        self.place = Some(worker.turns.wait(cx.waker()));
        Poll::Pending
    }
}
