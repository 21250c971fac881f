//! The conditions `ClaimsDrained`, which says why a fleet still has claims without pods, and `ClaimsMounted`, which
//! says why pods do not get their claims. Neither affects `Ready`.

use std::collections::BTreeMap;

use crds::ForwardGateway;

use crate::{
    desired::{drainer, jetstream},
    status::conditions::{ConditionType, Finding, Truth},
    world::{
        ObjectKey,
        cache::Cache,
        objects::{Drain, Hold, PodInfo, Stage},
    },
};

/// Claims that the message names.
const NAMED: usize = 4;

/// The writes for drained claims that the API server refuses, by claim.
#[derive(Debug, Default)]
pub struct Refusals(BTreeMap<ObjectKey, String>);

impl Refusals {
    /// Records the answer to a write for a claim, and forgets claims that are gone. Returns whether something changed.
    pub fn record(&mut self, claim: &ObjectKey, answer: Result<(), String>, cache: &Cache) -> bool {
        self.0.retain(|known, _| cache.claims.contains_key(known));
        let (before, now) = (self.0.remove(claim), answer.err());
        let is_new = before != now;
        self.0.extend(now.map(|why| (claim.clone(), why)));
        is_new
    }

    /// Why the drainer of a claim cannot be created, or the claim cannot be deleted. A drainer that exists is no longer
    /// refused.
    fn of(&self, claim: &ObjectKey, job: &ObjectKey, cache: &Cache) -> Option<&str> {
        let is_due = cache.drainers.get(job).is_none_or(|job| job.stage == Stage::Succeeded);
        self.0.get(claim).map(String::as_str).filter(|_| is_due)
    }
}

/// A claim without a pod, and the reason why it still exists.
struct Spare<'a> {
    drain: Drain,
    claim: &'a str,
    job: String,
    refusal: Option<&'a str>,
}

/// The condition of a gateway; `None` without such claims. It reports the claims that most need a person.
#[must_use]
pub fn claims_drained(gateway: &ObjectKey, cache: &Cache, refusals: &Refusals) -> Option<Finding> {
    let spare = cache.spare_claims(gateway).map(|(key, claim)| {
        let job = drainer::key(gateway, claim.ordinal);
        let refusal = refusals.of(key, &job, cache);
        let drain = if refusal.is_some() { Drain::Refused } else { cache.drain(&job) };
        Spare { drain, claim: &key.name, job: job.name, refusal }
    });
    let mut spare: Vec<Spare<'_>> = spare.collect();
    let worst = spare.iter().map(|spare| spare.drain).max()?;
    spare.retain(|spare| spare.drain == worst);
    let names: Vec<String> = spare.iter().map(|spare| spare.claim.to_owned()).collect();
    let (reason, why) = waits_for(spare.first()?);
    Some(Finding::new(ConditionType::ClaimsDrained, Truth::False, reason, format!("{}: {why}", listed(&names))))
}

/// The reason and message for which a claim still exists.
fn waits_for(Spare { drain, job, refusal, .. }: &Spare<'_>) -> (&'static str, String) {
    match drain {
        Drain::Runs => (
            "Draining",
            "the messages are sent once the pod is gone; an unreachable sink, or a pod that does not terminate, delays \
             this"
                .to_owned(),
        ),
        Drain::Refused => (
            "DrainRefused",
            format!("cannot create the Job {job}, or delete the claim after it: {}", refusal.unwrap_or_default()),
        ),
        Drain::NoPod => (
            "DrainLacksPod",
            format!("the Job has no pod: see the Events of Job {job}, often a quota or an admission policy"),
        ),
        Drain::Unschedulable => (
            "DrainUnschedulable",
            format!(
                "no node runs the pod: see the Events of the pod of Job {job}, often a volume whose node is gone, or an \
                 image that cannot be pulled"
            ),
        ),
        Drain::Failed => (
            "DrainFailed",
            format!(
                "the Job has failed, often for messages without a listener, dead letters or damage: do what the last \
                 line of its log says (kubectl logs --previous job/{job}), or delete the claim to give up its messages"
            ),
        ),
    }
}

/// The condition `ClaimsMounted` of a gateway; `None` while nothing keeps its pods from their claims. `held` are the
/// pods that something keeps from starting, and `is_late` says whether the node of such a pod had enough time.
#[must_use]
pub fn claims_mounted<'a>(
    gateway: &ForwardGateway,
    held: impl Iterator<Item = (&'a ObjectKey, &'a PodInfo)>,
    is_late: impl Fn(&PodInfo) -> bool,
) -> Option<Finding> {
    let claim = &gateway.spec.durability.as_ref()?.volume_claim;
    let (mut unscheduled, mut late) = (Vec::new(), Vec::new());
    for (key, pod) in held {
        match &pod.hold {
            Hold::Unschedulable(words) => unscheduled.push((key.name.as_str(), words)),
            Hold::Unprepared if is_late(pod) => late.push(key.name.as_str()),
            Hold::Unprepared | Hold::None => {}
        }
    }
    let (reason, why) = if let Some((pod, words)) = unscheduled.first() {
        let class = match &claim.storage_class_name {
            Some(class) => format!("StorageClass {class}"),
            None => "a default StorageClass".to_owned(),
        };
        let why = format!(
            "no node can run pod {pod} ({words}): see the Events of both (kubectl describe pod/{pod} \
             pvc/messages-{pod}); if {class} is missing, create it, and the claim gets its volume. spec.durability cannot \
             change: another class needs another gateway"
        );
        ("PodUnschedulable", why)
    } else {
        let pod = late.first()?;
        let files = jetstream::waits_for(gateway).map(|files| format!("the namespace lacks {files}, or "));
        let files = files.unwrap_or_default();
        let why = format!(
            "the node has not started pod {pod} for two minutes, often because {files}the node cannot attach or mount the \
             volume: see the Events of the pod (kubectl describe pod/{pod}); if the volume is still attached to a node \
             that is gone, delete that Node"
        );
        ("PodNotStarted", why)
    };
    let scheduled = late.iter().filter(|_| unscheduled.is_empty());
    let pods = unscheduled.iter().map(|(pod, _)| pod).chain(scheduled);
    let claims: Vec<String> = pods.map(|pod| format!("messages-{pod}")).collect();
    Some(Finding::new(ConditionType::ClaimsMounted, Truth::False, reason, format!("{}: {why}", listed(&claims))))
}

/// Formats a list of claims; at most four are named.
fn listed(claims: &[String]) -> String {
    let names = claims.get(..NAMED).unwrap_or(claims).join(", ");
    match claims.len().saturating_sub(NAMED) {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}
