//! Drain only: a proxy that serves nothing, and ends once the sinks have all messages in its folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    path::{Path, PathBuf},
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use proxy_api::{Configuration, ListenerId, Offer};
use tokio::time::sleep;

pub use crate::messages::LeftError;
use crate::{
    core::durable::{
        delivery::Seen,
        draining::{self, Left, Owner},
    },
    handle::Proxy,
    log::Level,
    messages::{self, ALL_LOGS},
};

/// Pause between two checks of the remainder.
const LOOK: Duration = Duration::from_millis(250);

/// Messages are left, so that the folder must stay.
#[derive(Debug, thiserror::Error)]
#[error("messages are left in {}, which must be kept: {words}", .folder.display())]
pub struct Kept {
    folder: PathBuf,
    words: String,
}

/// The remainder in a folder.
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

    /// Returns once no message is left that would be sent.
    async fn ends(&mut self, proxy: &Proxy) {
        let message = format!(
            "no port is open; sending the messages of {} in {} to their sinks",
            proxy_api::count(self.logs.len() as u64, "log"),
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

    /// Updates the remainder by the messages that the sinks have taken meanwhile.
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
                    // A reopened log counts from zero.
                    log.lost = log.lost.max(seen.lost);
                }
            } else if log.owner != Owner::Nobody {
                log.owner = Owner::Nobody;
                orphan(log, &self.folder, proxy);
            }
        }
    }

    /// Checks at the end that no message is left or has been added meanwhile, and nothing is damaged. A proxy whose pod
    /// was wrongly believed to be gone may have begun logs.
    ///
    /// # Errors
    /// The remainder.
    pub fn finish(mut self) -> Result<(), Kept> {
        let known: BTreeSet<String> = self.logs.iter().map(|log| log.folder.clone()).collect();
        match messages::find(&self.folder) {
            Ok(found) => self.logs.extend(found.into_iter().filter(|log| !known.contains(&log.folder))),
            Err(error) => return Err(Kept { folder: self.folder, words: error.to_string() }),
        }
        for log in self.logs.iter_mut().filter(|log| log.messages == Some(0)) {
            match messages::damage(&self.folder, &log.folder) {
                Ok(damage) => log.damage = damage,
                Err(error) => return Err(Kept { folder: self.folder, words: error.to_string() }),
            }
        }
        match draining::remainder(&self.logs) {
            None => Ok(()),
            Some(words) => Err(Kept { folder: self.folder, words }),
        }
    }
}

/// Returns once no message is left that would be sent; never for a proxy that serves.
pub async fn over(draining: Option<&mut Draining>, proxy: &Proxy) {
    match draining {
        Some(draining) => draining.ends(proxy).await,
        None => pending().await,
    }
}

/// The listeners of a configuration that keep messages in a folder, by its name, with the state of their messages.
fn owners<'a>(
    configuration: &Configuration,
    seen: &'a BTreeMap<ListenerId, Seen>,
) -> BTreeMap<String, Option<&'a Seen>> {
    let has_folder = |offer: &Offer| matches!(offer, Offer::Supported(listener) if draining::has_folder(listener));
    let durable = configuration.listeners.iter().filter(|(_, offer)| has_folder(offer));
    durable.map(|(id, _)| (messages::name(id), seen.get(id))).collect()
}

/// Counts and reports messages that no listener sends.
fn orphan(log: &mut Left, all: &Path, proxy: &Proxy) {
    // Earlier observations still hold. The log of a removed listener stays open for a while.
    if log.messages.is_none() {
        log.messages = messages::waiting(all, &log.folder).ok();
    }
    let waiting = match log.messages {
        Some(0) => return,
        Some(count) => format!("{} waiting", proxy_api::count(count, "message")),
        None => "messages may wait".to_owned(),
    };
    let message =
        format!("{waiting}, and no listener of this name has durable.store.disk: to have them sent, create it again");
    proxy.log().notice(Level::Error, "draining", &log.folder, message);
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use proxy_api::{Durable, Listener};
    use tempfile::tempdir;

    use super::*;
    use crate::fixtures::{durable, on_disk, stream};

    #[test]
    fn a_log_that_came_after_the_start_is_left_at_the_end() {
        let data = tempdir().expect("a folder");
        let draining = || Draining::find(data.path()).expect("a folder");
        assert!(draining().finish().is_ok());
        let before = draining();
        let log = data.path().join(ALL_LOGS).join("shop/logs/l");
        fs::create_dir_all(&log).expect("a folder");
        fs::write(log.join("log-1"), "").expect("a file");
        let kept = before.finish().expect_err("a log").to_string();
        assert!(kept.contains("shop/logs/l has messages that could not be counted"), "{kept}");
    }

    /// The number of folders for a configuration whose only listener is `durable`.
    fn folders(durable: Durable) -> usize {
        let text = include_str!("../../proxy-api/tests/documents/v1.yaml");
        let mut configuration = Configuration::decode(text.as_bytes()).expect("v1");
        let (id, template) = configuration.supported().next().expect("a listener");
        let listener = Listener { durable: Some(Box::new(durable)), ..template.clone() }.sealed();
        configuration.listeners = BTreeMap::from([(id.clone(), Offer::Supported(Arc::new(listener)))]);
        owners(&configuration, &BTreeMap::new()).len()
    }

    #[test]
    fn a_listener_that_keeps_messages_in_a_stream_does_not_own_the_folder_that_it_had() {
        assert_eq!(folders(on_disk()), 1);
        let stream = durable(stream("nats://127.0.0.1:1"));
        assert_eq!(folders(stream), 0, "an empty stream says nothing of the folder");
    }
}
