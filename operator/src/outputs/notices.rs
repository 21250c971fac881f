//! Sends notices to a user's webhook: Events that require a person's attention.
//!
//! Notices are collected for a few seconds and sent as one request, which is retried. Notices that do not fit in the
//! queue, or cannot be delivered, are dropped and counted. The URL is a secret: the sender reads it from a file before
//! each request, and never logs it.

mod send;

use std::{path::PathBuf, sync::Arc};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};

use self::send::{Sender, Sent};
use operator_core::{
    notices::{Format, Notice},
    schedule::{
        deliveries::{BATCH, COLLECT, pause},
        upkeep::Cause,
    },
};

use crate::platform::{
    liveness::Heartbeat,
    metrics::{Metrics, count},
    tasks::Tasks,
};

/// The most notices in the queue; further notices are dropped and counted.
const WAITING: usize = 256;

/// The queue of notices.
#[derive(Clone, Debug)]
pub struct Notices {
    out: mpsc::Sender<Notice>,
    metrics: Arc<Metrics>,
}

impl Notices {
    /// Starts the task that sends notices to the URL in this file.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn start(
        file: PathBuf,
        format: Format,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
        heartbeat: Heartbeat,
    ) -> Result<Self, rustls::Error> {
        let (out, waiting) = mpsc::channel(WAITING);
        let sender = Sender::new(file, format)?;
        tasks.job("notices", deliver(sender, waiting, metrics.clone(), heartbeat));
        Ok(Self { out, metrics })
    }

    /// Queues one notice. Without room in the queue the notice is dropped.
    pub fn queue(&self, notice: Notice) {
        if self.out.try_send(notice).is_err() {
            count(&self.metrics.notices, "result", "dropped");
        }
    }
}

async fn deliver(sender: Sender, mut waiting: mpsc::Receiver<Notice>, metrics: Arc<Metrics>, heartbeat: Heartbeat) {
    let mut cause = Cause::default();
    while let Some(first) = heartbeat.idle(waiting.recv()).await {
        let mut batch = vec![first];
        let end = Instant::now() + COLLECT;
        while batch.len() < BATCH
            && let Ok(Some(next)) = timeout_at(end, waiting.recv()).await
        {
            batch.push(next);
        }
        let mut result = heartbeat.request(Box::pin(sender.send(&batch))).await;
        let mut retries = 0;
        while matches!(result, Err(Sent::Again(_)))
            && let Some(pause) = pause(retries)
        {
            heartbeat.idle(sleep(pause)).await;
            retries += 1;
            result = heartbeat.request(Box::pin(sender.send(&batch))).await;
        }
        let word = if result.is_ok() { "sent" } else { "failed" };
        for _ in &batch {
            count(&metrics.notices, "result", word);
        }
        match result {
            Ok(()) => cause.succeeded(),
            Err(Sent::Again(why) | Sent::Refused(why)) => {
                if cause.failed(why.clone()) {
                    tracing::warn!(why, notices = batch.len(), "cannot deliver notices, dropping them");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_told_of_a_failure_does_not_name_the_url() {
        let file = std::env::temp_dir().join(format!("portlane-notices-{}", std::process::id()));
        let sender = Sender::new(file.clone(), Format::Json).expect("TLS");
        let notice = Notice {
            time: "2026-01-01T00:00:00Z".to_owned(),
            warning: true,
            reason: "BackendNotFound".to_owned(),
            kind: "PortForward".to_owned(),
            namespace: "shop".to_owned(),
            name: "db".to_owned(),
            listener: None,
            message: "none".to_owned(),
        };
        // No server listens, the text is not a URL, and the scheme is not that of a webhook.
        for url in ["http://127.0.0.1:1/hidden", "no URL/hidden", "ftp://127.0.0.1:1/hidden"] {
            std::fs::write(&file, url).expect("a file");
            let sent = sender.send(std::slice::from_ref(&notice)).await;
            let Err(Sent::Again(why) | Sent::Refused(why)) = sent else { panic!("{url} takes notices") };
            assert!(!why.is_empty() && !why.contains("hidden"), "{why}");
        }
        std::fs::remove_file(&file).expect("it is there");
    }
}
