//! Schedules of outputs: small state machines that take inputs and the time, and return effects for the driver to run.
//!
//! Times are durations since the driver started. A state machine never sleeps or retries on its own: the driver calls
//! it again when it is due, or at the next tick. The machines of single tasks (`access`, `discovery`, `election`,
//! `retries`, `schemas`, `status_writes`, `upkeep`) work the same way with the task in place of the driver.

pub mod access;
pub mod agents;
pub mod autoscalers;
pub mod backoff;
pub mod children;
pub mod cut_off;
pub mod debounce;
pub mod deletion_costs;
pub mod deliveries;
pub mod discovery;
pub mod drainers;
pub mod election;
pub mod enrolments;
pub mod liveness;
pub mod outdated_sidecars;
pub mod retries;
pub mod schedules;
pub mod schemas;
pub mod status_writes;
pub mod statuses;
pub mod unused_roots;
pub mod upkeep;

use std::time::Duration;

use serde_json::Value;

use crate::{
    desired::{autoscaler::Scaler, gateway::Desired},
    enrolment::Wanted,
    status::{claims::Refusals, events::Happened, fleets::Fleets, proxies::Proxies},
    translate::translator::Translator,
    world::{ObjectKey, cache::Cache, subject::Subject},
};

/// Longest time that applying the children of a gateway may take. An apply that takes longer is given up.
pub const LIMIT: Duration = Duration::from_secs(45);
/// Longest time that any other effect may take. Each is a few requests.
pub const EFFECT_LIMIT: Duration = Duration::from_secs(20);
/// How long a schedule waits for the result of an apply. A result that is missing after that never arrives.
pub const SILENCE: Duration = Duration::from_secs(60);
// An apply that is still running must not write over its successor.
const _: () = assert!(LIMIT.as_secs() < SILENCE.as_secs());
// An effect does not beat. A slow effect is given up before it counts as hanging.
const _: () = assert!(EFFECT_LIMIT.as_secs() < liveness::SILENCE.as_secs());

/// Whether this status code means that the object of a write is gone, was recreated, or has changed since it was read.
/// The write is not retried: the watch shows the present object, and the next write is derived from it.
#[must_use]
pub const fn is_outdated(code: Option<u16>) -> bool {
    matches!(code, Some(404 | 409))
}

/// Number of a term of this replica, counted from the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TermNumber(pub u64);

impl TermNumber {
    /// The number of the term after this one.
    #[must_use]
    pub fn following(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The result of an effect, with the term that requested the effect.
#[derive(Clone, Debug)]
pub struct Dated<T> {
    /// The term.
    pub term: TermNumber,
    /// The result.
    pub result: T,
}

impl<T> Dated<T> {
    /// Returns the result if it belongs to this term. A result of another term proves nothing: another leader may have
    /// written since, and the state that requested the effect is gone.
    #[must_use]
    pub fn within(self, term: TermNumber) -> Option<T> {
        (self.term == term).then_some(self.result)
    }
}

/// Everything that a decision may depend on.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The watched objects of the cluster.
    pub cache: &'a Cache,
    /// The translation of those objects.
    pub translator: &'a Translator,
    /// The pods of groups.
    pub fleets: &'a Fleets,
    /// The reports of proxies.
    pub proxies: &'a Proxies,
    /// The writes for drained claims that the API server refuses.
    pub refusals: &'a Refusals,
    /// The current time for timestamps, RFC 3339, whole seconds.
    pub wall_clock: &'a str,
}

/// An action for the driver.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Write a status.
    WriteStatus(StatusWrite),
    /// Write an event.
    Event(Happened),
    /// Apply the children of a gateway.
    ApplyChildren(Box<Desired>),
    /// Apply an HPA.
    ApplyAutoscaler(Subject, Box<Scaler>),
    /// Delete an HPA that the object with this uid owns.
    DeleteAutoscaler(ObjectKey, String),
    /// Drain a claim, or delete what remains of a drain.
    Drain(Box<drainers::Step>),
    /// Write the deletion cost of a pod.
    WriteCost(CostWrite),
    /// Check what the Secret of an agent offers.
    OfferEnrolment(Box<Wanted>),
    /// Remove the tunnel roots that nothing needs any more.
    RemoveUnusedRoots,
}

/// A status to write.
///
/// The write is fenced by the uid and not by the resource version. A status is computed whole from the world and the
/// reports, and the operator owns every field of it, so only its transition times depend on the status that it
/// replaces; `observedGeneration` names the spec that it describes. Within a term, no object has more than one write in
/// flight. A write of a former leader may still arrive a few seconds after its term; the watch shows that write to the
/// present leader, which compares and overwrites it. A resource version would also refuse a write after each edit of
/// spec, labels or annotations, and cost another evaluation and another write of a status that is already right.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusWrite {
    /// The object that has the status.
    pub subject: Subject,
    /// Uid that the object must still have.
    pub uid: String,
    /// The status as a merge patch.
    pub status: Value,
}

/// A deletion cost to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostWrite {
    /// The pod.
    pub pod: ObjectKey,
    /// Uid that the pod must still have.
    pub uid: String,
    /// The cost (`controller.kubernetes.io/pod-deletion-cost`).
    pub cost: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_given_up_only_when_the_api_server_says_that_its_object_is_another_one() {
        assert!(is_outdated(Some(404)) && is_outdated(Some(409)));
        assert!([None, Some(403), Some(429), Some(500)].into_iter().all(|code| !is_outdated(code)));
    }
}
