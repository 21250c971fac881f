//! The pause between two turns of a store's thread, in which messages gather: waking the thread for each read of a socket
//! would cost more than the messages in it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Store;

/// The part of the queue with which messages have gathered: one in so many.
const PART: usize = 4;

/// A pause of the thread, which others may end.
#[derive(Clone, Debug, Default)]
pub(super) struct Pause(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    /// Whether the thread pauses now.
    is_taken: bool,
    /// Whether somebody needs a turn.
    is_awaited: bool,
}

impl Pause {
    /// Waits for this long, or until somebody needs a turn.
    pub(super) fn take(&self, most: Duration) {
        if most.is_zero() {
            return;
        }
        let mut state = self.state();
        state.is_taken = true;
        let waited = self.0.1.wait_timeout_while(state, most, |state| !state.is_awaited);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_taken = false;
    }

    /// Ends the pause, or prevents the next one, for a command that is in the queue.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.is_awaited = true;
        if state.is_taken {
            self.0.1.notify_one();
        }
    }

    /// Begins a turn, which takes all commands that are in the queue.
    pub(super) fn begin_turn(&self) {
        self.state().is_awaited = false;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Has the thread take a turn now, for what is in the queue.
    pub(super) fn hurry(&self) {
        self.shared.commands.end_pause();
    }

    /// Has the thread take a turn now if the queue has no room for this many bytes, as room comes with a turn.
    pub(super) fn hurry_unless_room(&self, bytes: usize) {
        if !self.has_room(bytes) {
            self.hurry();
        }
    }

    /// Whether enough messages have gathered for a turn.
    pub(super) fn has_gathered(&self) -> bool {
        let waiting = self.shared.queue_bytes.saturating_sub(self.shared.room.available_permits());
        waiting >= self.shared.queue_bytes / PART
    }
}
