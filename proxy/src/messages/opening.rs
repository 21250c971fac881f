//! Opens the store of a log in a task of its own: a disk that hangs, or a server that does not answer, holds up nothing
//! else.

use std::rc::Rc;

use proxy_api::Durable;
use tokio::{
    sync::{
        Notify,
        oneshot::{self, error::TryRecvError},
    },
    task::spawn_local,
    time::Instant,
};

use super::{generations::Opened, place::PlaceOfLog, settings};
use crate::keeping::OPEN_WITHIN;

/// A store that is being opened.
pub(super) struct Opening {
    durable: Durable,
    since: Instant,
    opened: oneshot::Receiver<Result<Option<Opened>, String>>,
}

impl Opening {
    /// Waits for `before`, and opens the store if it returns true. `wake` is notified when this has ended.
    pub(super) fn start(
        place: PlaceOfLog,
        durable: &Durable,
        before: impl Future<Output = bool> + 'static,
        wake: Rc<Notify>,
    ) -> Self {
        let (done, opened) = oneshot::channel();
        let settings = durable.clone();
        spawn_local(async move {
            let answer = if before.await { place.open(&settings).await.map(Some) } else { Ok(None) };
            // The store may not be wanted any more: one without a handle closes itself.
            let _ = done.send(answer);
            wake.notify_one();
        });
        Self { durable: durable.clone(), since: Instant::now(), opened }
    }

    /// The outcome, once. `None`: the store is not open yet.
    pub(super) fn take(&mut self) -> Option<Result<Option<Opened>, String>> {
        match self.opened.try_recv() {
            Ok(opened) => Some(opened),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Closed) => Some(Err("the task that opens its log has failed, will retry".to_owned())),
        }
    }

    /// Whether opening takes longer than anybody waits for it.
    pub(super) fn is_late(&self) -> bool {
        self.since.elapsed() >= OPEN_WITHIN
    }

    /// Whether the store is opened with these settings.
    pub(super) fn is_of(&self, durable: &Durable) -> bool {
        settings::is_same_store(&self.durable, durable)
    }

    /// The settings with which the store is opened.
    pub(super) const fn durable(&self) -> &Durable {
        &self.durable
    }
}
