//! The condition `ClaimsDrained`: why a fleet still has claims whose pods it no longer has. It never affects `Ready`.

use crate::{
    desired::drainer,
    status::conditions::{ConditionType, Finding, Truth},
    world::{ObjectKey, cache::Cache, objects::Drain},
};

/// Claims that the message names.
const NAMED: usize = 4;

/// The condition of a gateway; `None` without such claims. It is about those that need a person most.
#[must_use]
pub fn claims_drained(gateway: &ObjectKey, cache: &Cache) -> Option<Finding> {
    let spare = cache.spare_claims(gateway).map(|(key, claim)| {
        let job = drainer::key(gateway, claim.ordinal);
        (cache.drain(&job), key.name.clone(), job.name)
    });
    let mut spare: Vec<(Drain, String, String)> = spare.collect();
    let worst = spare.iter().map(|(drain, ..)| *drain).max()?;
    spare.retain(|(drain, ..)| *drain == worst);
    let (_, _, job) = spare.first()?;
    let names: Vec<&str> = spare.iter().take(NAMED).map(|(_, name, _)| name.as_str()).collect();
    let more = match spare.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let names = names.join(", ") + &more;
    let (reason, why) = match worst {
        Drain::Runs => ("Draining", "messages are being sent; a sink that is away holds this up".to_owned()),
        Drain::NoPod => (
            "DrainLacksPod",
            format!("the Job has no pod: see the Events of Job {job}, often a quota or an admission policy"),
        ),
        Drain::Unschedulable => (
            "DrainUnschedulable",
            format!(
                "no node can run the pod: see the Events of the pod of Job {job}, often a volume whose node is gone"
            ),
        ),
        Drain::Failed => (
            "DrainFailed",
            format!(
                "the Job has failed, often for messages without a listener, dead letters or damage: do what the last \
                 line of its log says (kubectl logs --previous job/{job}), or delete the claim to give up its messages"
            ),
        ),
    };
    Some(Finding::new(ConditionType::ClaimsDrained, Truth::False, reason, format!("{names}: {why}")))
}
