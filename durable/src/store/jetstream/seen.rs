//! The figures and notifications of a thread with a stream.

use std::fmt::Display;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::stream::Info;
use durable_core::stream::{Way, is_drained};
use tokio::select;
use tokio::time::sleep;

use super::Keeper;
use super::long::most_of;
use super::server::{Link, down, words};
use crate::{Figures, StoreEvent};

/// How often the size of the stream is looked up.
const TICK: Duration = Duration::from_secs(5);
/// How often it is looked up while a caller waits until the sink has all messages.
const DRAIN_TICK: Duration = Duration::from_millis(200);

impl Keeper {
    /// Looks up the size of the stream now and then, while this process has the consumer: figures of a listener add up
    /// over its proxies.
    pub(super) async fn look(&self) {
        loop {
            let is_draining = !self.drains.borrow().is_empty();
            select! {
                () = sleep(if is_draining { DRAIN_TICK } else { TICK }) => {}
                () = self.has_drains.notified() => {}
            }
            self.look_once().await;
        }
    }

    async fn look_once(&self) {
        // Messages that are published after the look-up are not in its result.
        let waiting = self.waiting.get();
        let is_draining = !self.drains.borrow().is_empty();
        self.tell_long();
        // The bound of a stream may be removed.
        let is_wanted = is_draining || self.holds.borrow().is_some() || self.stream_takes.get() < usize::MAX;
        // The tasks that publish and pull report a failure.
        let info = if is_wanted && self.is_connected() { self.info().await.ok() } else { None };
        if let Some(info) = &info {
            self.stream_takes.set(most_of(&info.config));
            self.count_dropped(info.state.first_sequence).await;
        }
        self.show_bound();
        let holds = self.holds.borrow().is_some();
        if let Some(info) = info.as_ref().filter(|_| holds) {
            self.figures().bytes = info.state.bytes;
            // While there is room, each message says how many are behind it.
            if is_draining || self.is_stopped.get() {
                self.see_ahead(info);
            }
        }
        let held = self.window.borrow().held().0;
        if is_draining && is_drained((waiting, held), self.follows.get(), info.map(|info| info.state.messages)) {
            for drained in self.drains.borrow_mut().drain(..) {
                // The caller may not wait any more.
                let _ = drained.send(());
            }
        }
    }

    /// Counts the messages before the first one of the stream that were not read: for want of room the server has dropped
    /// them, or for their age. If another process has the consumer by now, that one may have had them.
    async fn count_dropped(&self, first_sequence: u64) {
        if self.window.borrow().missing(first_sequence) == 0 {
            return;
        }
        let Ok(there) = self.consumers_there().await else { return };
        if self.holds.borrow().as_ref().is_some_and(|own| there.contains(own)) {
            self.window.borrow_mut().begins_at(first_sequence, &mut self.figures());
        }
    }

    /// Counts the messages of the stream that the window does not have.
    pub(super) fn see_ahead(&self, info: &Info) {
        let held = self.window.borrow().held().0 as u64;
        self.ahead.set(info.state.messages.saturating_sub(held));
        self.show();
    }

    /// Updates the memory and the figures from the window.
    pub(super) fn show(&self) {
        let window = self.window.borrow();
        self.memory.holds(window.held());
        let mut figures = self.figures();
        figures.cursor = window.cursor();
        figures.next = window.end().saturating_add(self.ahead.get());
        figures.oldest_received_millis = window.oldest_received_millis();
    }

    pub(super) fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fails(&self, way: Way, why: String) {
        let is_reported = self.failures.borrow_mut().fails(way, why.clone());
        self.show_failure(is_reported, why);
    }

    /// As [`Keeper::fails`], where there is no connection.
    pub(super) fn is_down(&self, way: Way, link: &Link) {
        let why = down(&self.settings, link);
        if link.is_refused {
            let is_reported = self.failures.borrow_mut().refused(way, why.clone());
            self.show_failure(is_reported, why);
        } else {
            self.fails(way, why);
        }
    }

    fn show_failure(&self, is_reported: bool, why: String) {
        let mut figures = self.figures();
        if is_reported {
            figures.events.push(StoreEvent::Failed { error: why });
        }
        figures.failure = self.failures.borrow().present().map(str::to_owned);
    }

    pub(super) fn works(&self, way: Way) {
        let mut failures = self.failures.borrow_mut();
        failures.works(way);
        self.figures().failure = failures.present().map(str::to_owned);
    }

    pub(super) fn words(&self, doing: &str, error: &dyn Display) -> String {
        words(&self.settings, doing, error)
    }
}
