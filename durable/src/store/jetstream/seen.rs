//! What a thread with a stream shows and tells.

use std::fmt::Display;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::stream::Info;
use tokio::time::sleep;

use super::server::words;
use super::{Keeper, Way};
use crate::{Figures, StoreEvent};

/// How often the size of the stream is looked up.
const TICK: Duration = Duration::from_secs(5);

impl Keeper {
    /// Looks up the size of the stream now and then, while this process has the consumer: figures of a listener add up
    /// over its proxies.
    pub(super) async fn look(&self) {
        loop {
            sleep(TICK).await;
            let holds = self.holds.borrow().is_some();
            // A failure is told by those who publish and pull.
            if holds
                && self.is_connected()
                && let Ok(info) = self.info().await
            {
                self.figures().bytes = info.state.bytes;
                // While there is room, each message that comes says how many there are behind it.
                if self.is_stopped.get() {
                    self.see_ahead(&info);
                }
            }
        }
    }

    /// Counts the messages of the stream that the window does not have.
    pub(super) fn see_ahead(&self, info: &Info) {
        let held = self.window.borrow().held().0 as u64;
        self.ahead.set(info.state.messages.saturating_sub(held));
        self.show();
    }

    /// Shows what changed, and ends drains.
    pub(super) fn show(&self) {
        let window = self.window.borrow();
        self.memory.holds(window.held());
        let mut figures = self.figures();
        figures.cursor = window.cursor();
        figures.next = window.end().saturating_add(self.ahead.get());
        figures.oldest_received_millis = window.oldest_received_millis();
        if self.waiting.get() == 0 && figures.cursor >= figures.next {
            for drained in self.drains.borrow_mut().drain(..) {
                // The caller may not wait any more.
                let _ = drained.send(());
            }
        }
    }

    pub(super) fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fails(&self, way: Way, why: String) {
        self.see_failure(way, Some(why));
    }

    pub(super) fn works(&self, way: Way) {
        self.see_failure(way, None);
    }

    /// Keeps what fails on this way, and tells it once until the way works again. What breaks both is told once.
    fn see_failure(&self, way: Way, failure: Option<String>) {
        let mut failures = self.failures.borrow_mut();
        let [inward, outward] = &mut *failures;
        let (own, other) = match way {
            Way::In => (inward, outward),
            Way::Out => (outward, inward),
        };
        let news = failure.clone().filter(|why| own.is_none() && other.as_ref() != Some(why));
        *own = failure;
        let mut figures = self.figures();
        if let Some(error) = news {
            figures.events.push(StoreEvent::Failed { error });
        }
        figures.failure = failures.iter().flatten().next().cloned();
    }

    pub(super) fn words(&self, doing: &str, error: &dyn Display) -> String {
        words(&self.settings, doing, error)
    }
}
