//! Runs the effects that the core requests. Results return to the driver as messages.

use std::sync::Arc;

use kube::Client;
use proxy_api::SignOutcome;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use operator_core::{
    ObjectKey,
    enrolment::{Judged, Offered, Wanted},
    schedule::{
        Dated, EFFECT_LIMIT, Effect, TermNumber, autoscalers::Scaled, children as schedule, drainers::Answered,
    },
};

use super::patience::Patience;
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

/// The effect that applies the children of a gateway.
const CHILDREN: &str = "children of gateways";

/// The result of writing an object other than a status.
#[derive(Debug)]
pub enum Applied {
    /// The result of applying the children of a gateway.
    Children(schedule::Applied),
    /// The result of applying an autoscaler.
    Autoscaler(Scaled),
    /// The result of a write for a drained claim.
    Drained(Answered),
    /// The result of checking the Secret of an agent.
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
    /// Bounds how long an effect may take, for the same reason.
    pub patience: Patience,
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
        let client = self.client.clone();
        match effect {
            Effect::WriteStatus(write) => self.statuses.write(write),
            Effect::Event(happened) => self.events.report(happened),
            Effect::ApplyChildren(desired) => {
                let heartbeat = self.patience.heartbeat(CHILDREN);
                // The apply consists of many requests, so it has its own limit, and beats for each of them.
                self.spawn(CHILDREN, async move {
                    let result =
                        children::apply(&client, &desired, &heartbeat).await.map_err(|error| error.to_string());
                    Some(Applied::Children(schedule::Applied { key: desired.key, attempt: desired.attempt, result }))
                });
            }
            Effect::ApplyAutoscaler(subject, scaler) => {
                let result = Err(autoscalers::failed(&scaler.target, &unfinished()));
                let late = Scaled { subject: subject.clone(), scaler: scaler.clone(), result };
                self.start("autoscalers", Some(Applied::Autoscaler(late)), async move {
                    let result = autoscalers::apply(&client, &scaler).await;
                    Some(Applied::Autoscaler(Scaled { subject, scaler, result }))
                });
            }
            Effect::DeleteAutoscaler(key, owner) => {
                self.start("autoscalers", None, async move {
                    if let Err(error) = autoscalers::remove(&client, &key, &owner).await {
                        tracing::warn!(autoscaler = %key, error = error.message, "cannot delete the autoscaler, will retry");
                    }
                    None
                });
            }
            Effect::Drain(step) => {
                self.start("drainers", None, async move { drainers::run(&client, &step).await.map(Applied::Drained) });
            }
            Effect::WriteCost(cost) => {
                if let Some(costs) = self.deletion_costs.clone() {
                    self.start("deletion costs", None, async move {
                        costs.write(cost).await;
                        None
                    });
                }
            }
            Effect::RemoveUnusedRoots => self.remove_unused_roots(),
            Effect::OfferEnrolment(wanted) => self.offer(*wanted),
        }
    }

    /// Checks the Secret of an agent.
    fn offer(&mut self, wanted: Wanted) {
        let enroller = self.enroller.clone();
        let result = Err(format!("cannot check Secret {}: {}", wanted.secret(), unfinished()));
        let late = Offered { key: wanted.key.clone(), uid: wanted.identity.uid().to_owned(), result };
        self.start("Secrets of agents", Some(Applied::Enrolment(late)), async move {
            Some(Applied::Enrolment(enroller.offer(wanted).await))
        });
    }

    /// Removes the tunnel roots that nothing needs any more.
    fn remove_unused_roots(&mut self) {
        let enroller = self.enroller.clone();
        self.start("roots of the tunnels", None, async move {
            enroller.remove_unused_roots().await;
            None
        });
    }

    /// Signs a certificate. The stream may have ended before the answer.
    pub(super) fn sign(&mut self, judged: Judged, request: String, reply: oneshot::Sender<SignOutcome>) {
        while self.running.try_join_next().is_some() {}
        let Some(place) = self.enroller.place() else {
            let _ = reply.send(busy());
            return;
        };
        let enroller = self.enroller.clone();
        // If the signing is given up, the reply is dropped, and the stream tells its proxy to retry.
        self.start("certificates of tunnels", None, async move {
            let answered = enroller.sign(&judged, &request).await;
            drop(place);
            let _ = reply.send(answered.outcome);
            answered.redeemed.map(Applied::Redeemed)
        });
    }

    /// Starts an effect. If the effect is given up, its result is `late`.
    fn start(
        &mut self,
        name: &'static str,
        late: Option<Applied>,
        effect: impl Future<Output = Option<Applied>> + Send + 'static,
    ) {
        let bounded = self.patience.bound(name, effect);
        self.spawn(name, async move { bounded.await.unwrap_or(late) });
    }

    /// Runs an effect of the current term, and sends its result to the driver, which has a heartbeat of its own.
    fn spawn(&mut self, name: &'static str, effect: impl Future<Output = Option<Applied>> + Send + 'static) {
        let (results, term) = (self.results.clone(), self.term);
        let sent = async move {
            if let Some(result) = effect.await {
                let _ = results.send(Dated { term, result }).await;
            }
        };
        self.running.spawn(self.tasks.watched(name, sent));
    }
}

/// The failure of an effect that was given up.
fn unfinished() -> String {
    format!("the work did not finish within {} s: the API server is slow", EFFECT_LIMIT.as_secs())
}
