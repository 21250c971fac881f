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

/// The most Events in the queue; further Events are dropped and counted.
const WAITING: usize = 256;
/// The most Events that are remembered, so that one that recurs becomes part of a series. Each takes some 3 KiB for six
/// minutes, and each new Event is compared with all of them.
const REMEMBERED: usize = 256;

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
        tasks.job("events", write(Recorders::new(client, reporter), waiting, metrics.clone(), heartbeat));
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

/// Bounds the remembered Events: a recorder of the client library remembers every Event that it has published.
struct Recorders {
    client: Client,
    reporter: Reporter,
    recorder: Recorder,
    /// The number of Events that this recorder has published.
    published: usize,
}

impl Recorders {
    fn new(client: Client, reporter: Reporter) -> Self {
        let recorder = Recorder::new(client.clone(), reporter.clone());
        Self { client, reporter, recorder, published: 0 }
    }

    /// Returns the recorder of the next Event: a new one, which remembers nothing, once the last one remembers enough.
    fn next(&mut self) -> &Recorder {
        if self.published >= REMEMBERED {
            *self = Self::new(self.client.clone(), self.reporter.clone());
        }
        self.published += 1;
        &self.recorder
    }
}

async fn write(
    mut recorders: Recorders,
    mut waiting: mpsc::Receiver<Happened>,
    metrics: Arc<Metrics>,
    heartbeat: Heartbeat,
) {
    while let Some(Happened { object, warning, reason, note }) = heartbeat.idle(waiting.recv()).await {
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            action: "Reconcile".to_owned(),
            note: Some(note.chars().take(1000).collect()),
            reason,
            secondary: None,
        };
        let result = match heartbeat.answer(recorders.next().publish(&event, &object)).await {
            Ok(()) => "written",
            Err(error) => {
                tracing::debug!(%error, "cannot write an Event, dropping it");
                "failed"
            }
        };
        count(&metrics.events, "result", result);
    }
}

#[cfg(test)]
mod tests {
    use kube::Config;

    use super::*;

    #[tokio::test]
    async fn a_recorder_remembers_no_more_events_than_the_bound() {
        let mut config = Config::new("http://127.0.0.1:1".parse().expect("an address"));
        config.root_cert = Some(Vec::new());
        let client = Client::try_from(config).expect("a client");
        let reporter = Reporter { controller: NAME.to_owned(), instance: Some("pod".to_owned()) };
        let mut recorders = Recorders::new(client, reporter);
        for at in 0..3 * REMEMBERED {
            let _ = recorders.next();
            assert_eq!(recorders.published, at % REMEMBERED + 1);
        }
    }
}
