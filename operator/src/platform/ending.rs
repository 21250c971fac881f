//! The end of this replica, for the servers that API servers connect to.
//!
//! An API server keeps its connections open. If one breaks, the request on it fails, and a pod that is created at that
//! moment gets no sidecar. So each connection is closed right after an answer.

use std::sync::Arc;

use tokio::sync::watch;

/// The state of the end: whether it has begun, and which connections are still open.
#[derive(Clone)]
pub struct Ending {
    begun: watch::Receiver<bool>,
    open: Arc<watch::Sender<()>>,
}

/// Marks a connection as open until it is dropped.
pub struct Open {
    _counted: watch::Receiver<()>,
}

impl Ending {
    /// An end that begins when `begun` becomes true.
    #[must_use]
    pub fn new(begun: watch::Receiver<bool>) -> Self {
        Self { begun, open: Arc::new(watch::channel(()).0) }
    }

    /// Counts a connection as open.
    #[must_use]
    pub fn open(&self) -> Open {
        Open { _counted: self.open.subscribe() }
    }

    /// Whether the end has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        *self.begun.borrow()
    }

    /// Resolves once the end has begun.
    pub async fn begun(&mut self) {
        if self.begun.wait_for(|begun| *begun).await.is_err() {
            // Without a sender, no end is announced.
            std::future::pending::<()>().await;
        }
    }

    /// Resolves once no connection is open.
    pub async fn all_closed(&self) {
        self.open.closed().await;
    }
}
