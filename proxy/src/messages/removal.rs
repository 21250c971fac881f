//! Notices that the folder of a log was removed or moved while it is in use.

use std::{sync::Arc, time::Duration};

use durable::{Figures, Presence};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

/// How long a look waits for the disk. A later look gets an answer that takes longer.
const WAIT: Duration = Duration::from_millis(10);

/// Asks the disk whether a folder was removed or moved, once at a time.
pub(super) struct Removal {
    /// `None`: there is no folder.
    presence: Option<Arc<Presence>>,
    asked: Option<JoinHandle<bool>>,
    is_removed: bool,
}

impl Removal {
    pub(super) fn of(presence: Option<Presence>) -> Self {
        Self { presence: presence.map(Arc::new), asked: None, is_removed: false }
    }

    /// Whether the folder was removed, by the last answer.
    pub(super) async fn is_seen(&mut self) -> bool {
        let Some(presence) = self.presence.clone() else { return false };
        let asked = self.asked.get_or_insert_with(|| spawn_blocking(move || presence.is_removed()));
        let answer = timeout(WAIT, asked).await;
        if let Ok(answer) = answer {
            self.asked = None;
            self.is_removed = answer.unwrap_or(false);
        }
        self.is_removed
    }

    /// The figures of a log on disk: in one that was removed, nothing waits any more.
    pub(super) fn left(&self, mut figures: Figures) -> Figures {
        if self.is_removed {
            (figures.cursor, figures.oldest_received_millis, figures.bytes) = (figures.next, None, 0);
        }
        figures
    }
}
