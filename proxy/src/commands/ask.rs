//! A request of the control thread to the thread of durable listeners.

use std::sync::Arc;

use proxy_api::{Listener, ListenerId};
use tokio::sync::oneshot;

use crate::shared::Shared;

/// The request.
#[derive(Debug)]
pub enum Ask {
    /// Open the logs of these listeners, unless they are open. Other logs that are not open yet are no longer needed.
    Open(Vec<Wanted>),
    /// Run these durable listeners, and no others.
    Run(Vec<Arc<Shared>>),
}

/// A log that is needed.
#[derive(Debug)]
pub struct Wanted {
    /// The listener.
    pub id: ListenerId,
    /// Its spec.
    pub spec: Arc<Listener>,
    /// Hears why there is no log, if so.
    pub done: oneshot::Sender<Result<(), String>>,
}
