//! Sends notices to a user's webhook: the Events that a person should look at.
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

/// Notices that may wait; further notices are dropped and counted.
const WAITING: usize = 256;

/// The queue of notices.
#[derive(Clone, Debug)]
pub struct Notices {
    out: mpsc::Sender<Notice>,
    metrics: Arc<Metrics>,
}

impl Notices {
    /// Starts the task that sends them to the URL in this file.
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
        let mut result = heartbeat.answers(Box::pin(sender.send(&batch))).await;
        let mut retries = 0;
        while matches!(result, Err(Sent::Again(_)))
            && let Some(pause) = pause(retries)
        {
            heartbeat.idle(sleep(pause)).await;
            retries += 1;
            result = heartbeat.answers(Box::pin(sender.send(&batch))).await;
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
