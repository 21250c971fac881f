//! The turns of a worker's streams, and the task that assigns them.

use std::{cell::RefCell, task::Waker};

use tokio::{sync::Notify, task::yield_now};

use crate::core::workers::turns::{Place, Turns};

/// Turns of the streams of one worker.
#[derive(Debug, Default)]
pub struct StreamTurns {
    turns: RefCell<Turns<Waker>>,
    asked: Notify,
}

impl StreamTurns {
    /// Whether the turn has bytes left.
    pub fn has_room(&self) -> bool {
        self.turns.borrow().has_room()
    }

    /// Counts bytes that a stream has moved.
    pub fn moved(&self, bytes: usize) {
        self.turns.borrow_mut().moved(bytes);
    }

    /// Puts a stream at the end of the queue. It is woken when it is called.
    pub fn wait(&self, waker: &Waker) -> Place {
        self.asked.notify_one();
        self.turns.borrow_mut().wait(waker.clone())
    }

    /// Whether the stream at this place still waits. If so, `waker` will wake it.
    pub fn still_waits(&self, place: Place, waker: &Waker) -> bool {
        let mut turns = self.turns.borrow_mut();
        let Some(waiter) = turns.waiter(place) else { return false };
        waiter.clone_from(waker);
        true
    }

    /// Calls streams as long as the worker runs.
    pub async fn give(&self) {
        loop {
            self.asked.notified().await;
            while !self.turns.borrow().is_idle() {
                // tokio polls the reactor before it wakes a task that has yielded.
                yield_now().await;
                let called = self.turns.borrow_mut().renew();
                if let Some(waker) = called {
                    waker.wake();
                }
            }
        }
    }
}
