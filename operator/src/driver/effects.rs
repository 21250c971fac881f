//! Runs the effects that the core asks for. Results return to the driver as messages.

use std::sync::Arc;

use kube::Client;
use proxy_api::SignOutcome;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use operator_core::{
    ObjectKey,
    enrolment::{Judged, Offered},
    schedule::{Dated, Effect, TermNumber, autoscalers::Scaled, children as schedule, drainers::Answered},
};

use crate::{
    outputs::{
        autoscalers, children,
        deletion_costs::CostWriter,
        drainers,
        enrolments::{Enroller, busy},
        events::Events,
        status_writer::StatusWriter,
    },
    platform::{metrics::Metrics, tasks::Tasks},
};

/// The result of writing an object other than a status.
#[derive(Debug)]
pub enum Applied {
    /// The children of a gateway.
    Children(schedule::Applied),
    /// An autoscaler.
    Autoscaler(Scaled),
    /// A write for a drained claim.
    Drained(Answered),
    /// The Secret of an agent.
    Enrolment(Offered),
    /// A token of this agent was redeemed.
    Redeemed(ObjectKey),
}

/// The outputs that effects run on.
pub struct Effects {
    /// The client of the API server.
    pub client: Client,
    /// Writes statuses.
    pub statuses: StatusWriter,
    /// Writes events.
    pub events: Events,
    /// Writes deletion costs of pods; absent if the operator may not write them.
    pub deletion_costs: Option<CostWriter>,
    /// Checks the Secrets of agents, and signs certificates.
    pub enroller: Enroller,
    /// Whether HPAs may be written.
    pub autoscaling: bool,
    /// The driver's channel for results.
    pub results: mpsc::Sender<Dated<Applied>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The current term.
    pub term: TermNumber,
    /// Effects of the current term that are in progress.
    pub running: JoinSet<Option<()>>,
    /// Supervises effects. An effect without a result would block its object for ever, so a panic ends the process.
    pub tasks: Tasks,
}

impl Effects {
    /// Begins a term, or the time after one. Drops the effects of the term before: another leader may already be
    /// writing.
    pub(super) fn begin(&mut self, term: TermNumber) {
        self.term = term;
        self.statuses.begin(term);
        self.running = JoinSet::new();
    }

    /// Number of status writes that the writer takes on now.
    pub(super) fn room(&self) -> usize {
        self.statuses.room()
    }

    pub(super) fn run_all(&mut self, effects: impl IntoIterator<Item = Effect>) {
        while self.running.try_join_next().is_some() {}
        effects.into_iter().for_each(|effect| self.run(effect));
    }

    fn run(&mut self, effect: Effect) {
        let (client, results, term) = (self.client.clone(), self.results.clone(), self.term);
        match effect {
            Effect::WriteStatus(write) => self.statuses.write(write),
            Effect::Event(happened) => self.events.report(happened),
            Effect::ApplyChildren(desired) => {
                self.start("children of gateways", async move {
                    let result = children::apply(&client, &desired).await.map_err(|error| error.to_string());
                    let applied = schedule::Applied { key: desired.key, attempt: desired.attempt, result };
                    let _ = results.send(Dated { term, result: Applied::Children(applied) }).await;
                });
            }
            Effect::ApplyAutoscaler(subject, scaler) => {
                self.start("autoscalers", async move {
                    let result = autoscalers::apply(&client, &scaler).await;
                    let done = Scaled { subject, scaler, result };
                    let _ = results.send(Dated { term, result: Applied::Autoscaler(done) }).await;
                });
            }
            Effect::DeleteAutoscaler(key, owner) => {
                self.start("autoscalers", async move {
                    if let Err(error) = autoscalers::remove(&client, &key, &owner).await {
                        tracing::warn!(autoscaler = %key, error = error.message, "cannot delete the autoscaler, will retry");
                    }
                });
            }
            Effect::Drain(step) => {
                self.start("drainers", async move {
                    if let Some(answered) = drainers::run(&client, &step).await {
                        let _ = results.send(Dated { term, result: Applied::Drained(answered) }).await;
                    }
                });
            }
            Effect::WriteCost(cost) => {
                if let Some(costs) = self.deletion_costs.clone() {
                    self.start("deletion costs", costs.write(cost));
                }
            }
            Effect::RemoveUnusedRoots => self.remove_unused_roots(),
            Effect::OfferEnrolment(wanted) => {
                let enroller = self.enroller.clone();
                self.start("Secrets of agents", async move {
                    let offered = enroller.offer(*wanted).await;
                    let _ = results.send(Dated { term, result: Applied::Enrolment(offered) }).await;
                });
            }
        }
    }

    /// Removes the tunnel roots that nothing needs any more.
    fn remove_unused_roots(&mut self) {
        let enroller = self.enroller.clone();
        self.start("roots of the tunnels", enroller.remove_unused_roots());
    }

    /// Signs a certificate. The stream may have ended before the answer.
    pub(super) fn sign(&mut self, judged: Judged, request: String, reply: oneshot::Sender<SignOutcome>) {
        while self.running.try_join_next().is_some() {}
        let Some(place) = self.enroller.place() else {
            let _ = reply.send(busy());
            return;
        };
        let (enroller, results, term) = (self.enroller.clone(), self.results.clone(), self.term);
        self.start("certificates of tunnels", async move {
            let answered = enroller.sign(&judged, &request).await;
            drop(place);
            let _ = reply.send(answered.outcome);
            if let Some(key) = answered.redeemed {
                let _ = results.send(Dated { term, result: Applied::Redeemed(key) }).await;
            }
        });
    }

    /// Starts an effect of the current term.
    fn start(&mut self, name: &'static str, effect: impl Future<Output = ()> + Send + 'static) {
        self.running.spawn(self.tasks.watched(name, effect));
    }
}
