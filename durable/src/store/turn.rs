//! The turn that the thread of a store takes, in which it may wait for the disk.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Store;

/// When the present turn began; `None`: the thread waits for commands. One that speaks with a server takes no turns, as
/// each of its waits has a deadline.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn(Arc<Mutex<Option<Instant>>>);

impl Turn {
    pub(super) fn begin(&self) {
        self.set(Some(Instant::now()));
    }

    pub(super) fn end(&self) {
        self.set(None);
    }

    fn set(&self, began: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = began;
    }
}

impl Store {
    /// How long the thread has been taking its present turn; `None`: it takes none, or has ended.
    pub fn turn(&self) -> Option<Duration> {
        let began = *self.shared.turn.0.lock().unwrap_or_else(PoisonError::into_inner);
        began.filter(|_| !self.has_ended()).map(|began| began.elapsed())
    }
}
