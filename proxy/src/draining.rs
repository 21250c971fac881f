//! Drain only: a proxy that serves nothing, and ends once the sinks have what its folder had.

use std::{
    collections::BTreeMap,
    future::pending,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use proxy_api::{Configuration, ListenerId, Offer};
use tokio::time::sleep;

pub use crate::messages::LeftError;
use crate::{
    core::{
        delivery::Seen,
        draining::{self, Left, Owner},
    },
    handle::Proxy,
    log::Level,
    messages::{self, ALL_LOGS},
};

/// Pause between two looks at what is left.
const LOOK: Duration = Duration::from_millis(250);

/// Messages are left, so that the folder must stay.
#[derive(Debug, thiserror::Error)]
#[error("messages are left in {}, which must be kept: {words}", .folder.display())]
pub struct Kept {
    folder: PathBuf,
    words: String,
}

/// What is left in a folder.
#[derive(Debug)]
pub struct Draining {
    /// The folder of all logs.
    folder: PathBuf,
    logs: Vec<Left>,
}

impl Draining {
    /// Finds the logs in this folder for the messages of durable listeners.
    ///
    /// # Errors
    /// See [`LeftError`].
    pub fn find(data: &Path) -> Result<Self, LeftError> {
        let folder = data.join(ALL_LOGS);
        let logs = messages::find(&folder)?;
        Ok(Self { folder, logs })
    }

    /// Returns once nothing is left that would be sent.
    async fn ends(&mut self, proxy: &Proxy) {
        let message = format!(
            "nothing is served: the messages of {} log(s) in {} go to their sinks",
            self.logs.len(),
            self.folder.display()
        );
        proxy.log().notice(Level::Info, "draining", "portlane-proxy", message);
        loop {
            self.look(proxy).await;
            if draining::is_over(&self.logs) {
                return;
            }
            sleep(LOOK).await;
        }
    }

    /// Looks at what the sinks have taken meanwhile.
    async fn look(&mut self, proxy: &Proxy) {
        if proxy.metrics().control.applied.load(Relaxed) == 0 {
            return;
        }
        // A proxy that has ended sends nothing more.
        let Ok(configuration) = proxy.current().await else { return };
        let seen = proxy.metrics().durable();
        let mut owners = owners(&configuration, &seen);
        for log in &mut self.logs {
            if let Some(seen) = owners.remove(&log.folder) {
                log.owner = Owner::Listener;
                if let Some(seen) = seen {
                    (log.messages, log.put_aside) = (Some(seen.backlog), seen.dead_lettered);
                }
            } else if log.owner != Owner::Nobody {
                log.owner = Owner::Nobody;
                orphan(log, &self.folder, proxy);
            }
        }
    }

    /// The end: whether nothing is left.
    ///
    /// # Errors
    /// What is left.
    pub fn finish(self) -> Result<(), Kept> {
        match draining::remainder(&self.logs) {
            None => Ok(()),
            Some(words) => Err(Kept { folder: self.folder, words }),
        }
    }
}

/// Returns once nothing is left that would be sent; never for a proxy that serves.
pub async fn over(draining: Option<&mut Draining>, proxy: &Proxy) {
    match draining {
        Some(draining) => draining.ends(proxy).await,
        None => pending().await,
    }
}

/// The durable listeners of a configuration, by the names of their folders, and what was seen of their messages.
fn owners<'a>(
    configuration: &Configuration,
    seen: &'a BTreeMap<Arc<ListenerId>, Seen>,
) -> BTreeMap<String, Option<&'a Seen>> {
    let is_durable = |offer: &Offer| matches!(offer, Offer::Supported(listener) if listener.durable.is_some());
    let durable = configuration.listeners.iter().filter(|(_, offer)| is_durable(offer));
    durable.map(|(id, _)| (messages::name(id), seen.get(id))).collect()
}

/// Counts, and tells of, messages that nobody sends.
fn orphan(log: &mut Left, all: &Path, proxy: &Proxy) {
    // What was seen while there was a listener still holds. The log of one that has just gone is open for a while.
    if log.messages.is_none() {
        log.messages = messages::waiting(all, &log.folder).ok();
    }
    let waiting = match log.messages {
        Some(0) => return,
        Some(count) => format!("{count} message(s) wait"),
        None => "messages may wait".to_owned(),
    };
    let message =
        format!("{waiting}, and there is no durable listener of this name: create it again to have them sent");
    proxy.log().notice(Level::Error, "draining", &log.folder, message);
}
