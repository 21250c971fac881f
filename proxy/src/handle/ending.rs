//! Ends a running proxy.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use super::Proxy;
use crate::supervisor::Control;

impl Proxy {
    /// Closes the listeners and drains sessions for no longer than `longest`. Returns at once; see
    /// [`Proxy::has_ended`].
    pub async fn drain(&self, longest: Duration) {
        // A proxy that has already ended needs no drain.
        let _ = self.control.send(Control::Drain(longest)).await;
    }

    /// Whether a drain has begun, whoever asked for it.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        // The control thread takes no requests from then on.
        self.control.is_closed()
    }

    /// Ends a drain immediately.
    pub fn stop_waiting(&self) {
        self.process.stop.store(true, Relaxed);
    }
}
