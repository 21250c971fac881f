//! One question of the control thread.

use std::sync::Arc;

use proxy_api::{Listener, ListenerId};
use tokio::sync::oneshot;

use crate::shared::Shared;

/// What is asked.
#[derive(Debug)]
pub enum Ask {
    /// Open the logs of these listeners, unless they are open. Others that are not open yet are not needed any more.
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
