//! Runs the effects that the core asks for. Results return to the driver as messages.

use std::sync::Arc;

use kube::Client;
use tokio::sync::mpsc;

use operator_core::schedule::{Effect, autoscalers::Scaled, children as schedule};

use crate::{
    outputs::{autoscalers, children, deletion_costs, events::Events, status_writer::StatusWriter},
    platform::metrics::Metrics,
};

/// The result of applying children or an autoscaler.
#[derive(Debug)]
pub enum Applied {
    /// The children of a gateway.
    Children(schedule::Applied),
    /// An autoscaler.
    Autoscaler(Scaled),
}

impl Applied {
    /// Whether the API server accepted all of it.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        match self {
            Self::Children(applied) => applied.error.is_none(),
            Self::Autoscaler(scaled) => scaled.result.is_ok(),
        }
    }
}

/// The outputs that effects run on.
pub struct Effects {
    /// The client of the API server.
    pub client: Client,
    /// Writes statuses.
    pub statuses: StatusWriter,
    /// Writes events.
    pub events: Events,
    /// Whether deletion costs of pods may be written.
    pub deletion_costs: bool,
    /// Whether HPAs may be written.
    pub autoscaling: bool,
    /// The driver's channel for results.
    pub results: mpsc::Sender<Applied>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Effects {
    /// Ends the term: status writes that still wait are dropped.
    pub(super) fn end_term(&self) {
        self.statuses.end_term();
    }

    /// Number of status writes that the writer takes on now.
    pub(super) fn room(&self) -> usize {
        self.statuses.room()
    }

    pub(super) fn run_all(&self, effects: impl IntoIterator<Item = Effect>) {
        effects.into_iter().for_each(|effect| self.run(effect));
    }

    fn run(&self, effect: Effect) {
        let (client, results) = (self.client.clone(), self.results.clone());
        match effect {
            Effect::WriteStatus(write) => self.statuses.write(write),
            Effect::Event(happened) => self.events.report(happened),
            Effect::ApplyChildren(desired) => {
                tokio::spawn(async move {
                    let error = children::apply(&client, &desired).await.err().map(|error| error.to_string());
                    let generation = desired.gateway.metadata.generation;
                    let applied = schedule::Applied { key: desired.key, generation, hash: desired.hash, error };
                    let _ = results.send(Applied::Children(applied)).await;
                });
            }
            Effect::ApplyAutoscaler(subject, scaler) => {
                tokio::spawn(async move {
                    let result = autoscalers::apply(&client, &scaler).await;
                    let _ = results.send(Applied::Autoscaler(Scaled { subject, scaler, result })).await;
                });
            }
            Effect::DeleteAutoscaler(key, owner) => {
                tokio::spawn(async move {
                    if let Err(error) = autoscalers::remove(&client, &key, &owner).await {
                        tracing::warn!(autoscaler = %key, error = error.message, "cannot delete the autoscaler, will retry");
                    }
                });
            }
            Effect::WriteCost(cost) => {
                tokio::spawn(deletion_costs::write(client, cost, self.metrics.clone()));
            }
        }
    }
}
