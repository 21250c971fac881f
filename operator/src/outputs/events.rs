//! Events (`events.k8s.io`) on transitions, for `kubectl describe`.

use std::sync::Arc;

use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::mpsc;

use crate::{
    NAME,
    metrics::{Metrics, count},
    notices::{Notice, Notices},
};

/// Events that may wait; further ones are dropped and counted.
const WAITING: usize = 256;

/// Reason of the event of a fleet that grows.
pub const SCALED_OUT: &str = "ScaledOut";

/// Reason of the event of backends that became unhealthy.
pub const BACKENDS_UNHEALTHY: &str = "BackendsUnhealthy";

/// Reason of the event of backends that are healthy again.
pub const BACKENDS_HEALTHY: &str = "BackendsHealthy";

/// Reason of the event of a proxy that ended before its sessions did.
pub const DRAIN_CUT: &str = "DrainCut";

/// Something that happened to an object.
#[derive(Debug)]
pub struct Happened {
    /// The object.
    pub object: ObjectReference,
    /// A warning, or all is well.
    pub warning: bool,
    /// One word.
    pub reason: String,
    /// For a person.
    pub note: String,
}

/// Where events are told.
#[derive(Clone, Debug)]
pub struct Events {
    out: mpsc::Sender<Happened>,
    notices: Option<Notices>,
    metrics: Arc<Metrics>,
}

impl Events {
    /// Starts the task that writes them.
    #[must_use]
    pub fn start(client: Client, instance: String, notices: Option<Notices>, metrics: Arc<Metrics>) -> Self {
        let (out, waiting) = mpsc::channel(WAITING);
        let reporter = Reporter { controller: NAME.to_owned(), instance: Some(instance) };
        tokio::spawn(write(Recorder::new(client, reporter), waiting, metrics.clone()));
        Self { out, notices, metrics }
    }

    /// Tells one.
    pub fn tell(&self, happened: Happened) {
        if let Some(notices) = self.notices.as_ref().filter(|_| happened.warning || happened.reason == SCALED_OUT) {
            notices.tell(notice(&happened));
        }
        if self.out.try_send(happened).is_err() {
            count(&self.metrics.events, "result", "dropped");
        }
    }
}

fn notice(Happened { object, warning, reason, note }: &Happened) -> Notice {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Notice {
        time: Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        warning: *warning,
        reason: reason.clone(),
        kind: text(&object.kind),
        namespace: text(&object.namespace),
        name: text(&object.name),
        message: note.clone(),
    }
}

async fn write(recorder: Recorder, mut waiting: mpsc::Receiver<Happened>, metrics: Arc<Metrics>) {
    while let Some(Happened { object, warning, reason, note }) = waiting.recv().await {
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            action: "Reconcile".to_owned(),
            note: Some(note.chars().take(1000).collect()),
            reason,
            secondary: None,
        };
        let result = match recorder.publish(&event, &object).await {
            Ok(()) => "written",
            Err(error) => {
                tracing::debug!(%error, "an event cannot be written");
                "failed"
            }
        };
        count(&metrics.events, "result", result);
    }
}
