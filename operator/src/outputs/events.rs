//! Events (`events.k8s.io`) on transitions, for `kubectl describe`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use k8s_openapi::jiff::Timestamp;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::mpsc;

use operator_core::{EventRates, names::NAME, notices::Notice, status::events::Happened};

use crate::{
    outputs::notices::Notices,
    platform::{
        liveness::Heartbeat,
        metrics::{Metrics, count},
        tasks::Tasks,
    },
};

/// Events that may wait; further Events are dropped and counted.
const WAITING: usize = 256;

/// Writes Events to the API server, and sends notices of the important ones to a user's webhook.
#[derive(Clone, Debug)]
pub struct Events {
    out: mpsc::Sender<Happened>,
    notices: Option<Notices>,
    rates: Arc<Mutex<EventRates>>,
    started: Instant,
    metrics: Arc<Metrics>,
}

impl Events {
    /// Starts the task that writes Events.
    #[must_use]
    pub fn start(
        client: Client,
        instance: String,
        notices: Option<Notices>,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
        heartbeat: Heartbeat,
    ) -> Self {
        let (out, waiting) = mpsc::channel(WAITING);
        let reporter = Reporter { controller: NAME.to_owned(), instance: Some(instance) };
        tasks.job("events", write(Recorder::new(client, reporter), waiting, metrics.clone(), heartbeat));
        Self { out, notices, rates: Arc::default(), started: Instant::now(), metrics }
    }

    /// Queues one Event, and a notice if the Event is notable. Without room in the queue, and beyond the rate of its
    /// namespace, the Event is dropped.
    pub fn report(&self, happened: Happened) {
        let namespace = happened.object.namespace.as_deref().unwrap_or_default();
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if !rates.admits(namespace, self.started.elapsed()) {
            return count(&self.metrics.events, "result", "limited");
        }
        drop(rates);
        if let Some(notices) = self.notices.as_ref().filter(|_| happened.is_notable()) {
            notices.queue(notice(&happened));
        }
        if self.out.try_send(happened).is_err() {
            count(&self.metrics.events, "result", "dropped");
        }
    }
}

fn notice(happened: &Happened) -> Notice {
    let Happened { object, warning, reason, note } = happened;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Notice {
        time: Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        warning: *warning,
        reason: reason.clone(),
        kind: text(&object.kind),
        namespace: text(&object.namespace),
        name: text(&object.name),
        listener: happened.listener().map(str::to_owned),
        message: note.clone(),
    }
}

async fn write(recorder: Recorder, mut waiting: mpsc::Receiver<Happened>, metrics: Arc<Metrics>, heartbeat: Heartbeat) {
    while let Some(Happened { object, warning, reason, note }) = heartbeat.idle(waiting.recv()).await {
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            action: "Reconcile".to_owned(),
            note: Some(note.chars().take(1000).collect()),
            reason,
            secondary: None,
        };
        let result = match heartbeat.answers(Box::pin(recorder.publish(&event, &object))).await {
            Ok(()) => "written",
            Err(error) => {
                tracing::debug!(%error, "cannot write an Event, dropping it");
                "failed"
            }
        };
        count(&metrics.events, "result", result);
    }
}
