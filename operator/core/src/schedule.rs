//! What is due when: small state machines that take inputs and the time, and give effects. The driver runs the effects.
//!
//! Times are durations since the driver started. No state machine sleeps or retries by itself: the driver calls each one
//! again, at the time that it names or at the next tick.

pub mod autoscalers;
pub mod children;
pub mod debounce;
pub mod deletion_costs;
pub mod statuses;

use serde_json::Value;

use crate::{
    desired::{autoscaler::Scaler, gateway::Desired},
    status::{events::Happened, fleets::Fleets, proxies::Proxies},
    translate::translator::Translator,
    world::{ObjectKey, cache::Cache, subject::Subject},
};

/// All that is known at the moment of a decision.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The cluster.
    pub cache: &'a Cache,
    /// What it means.
    pub translator: &'a Translator,
    /// The pods of groups.
    pub fleets: &'a Fleets,
    /// What proxies reported.
    pub proxies: &'a Proxies,
    /// The time for timestamps, RFC 3339, whole seconds.
    pub wall_clock: &'a str,
}

/// What the driver has to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Write a status.
    WriteStatus(StatusWrite),
    /// Write an event.
    Event(Happened),
    /// Apply the children of a gateway.
    ApplyChildren(Box<Desired>),
    /// Apply an autoscaler.
    ApplyAutoscaler(Subject, Box<Scaler>),
    /// Delete an autoscaler that belongs to the owner with this uid.
    DeleteAutoscaler(ObjectKey, String),
    /// Write the deletion cost of a pod.
    WriteCost(CostWrite),
}

/// One status to write.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusWrite {
    /// The object.
    pub subject: Subject,
    /// Uid that the object must still have.
    pub uid: String,
    /// The status as a merge patch.
    pub status: Value,
}

/// One deletion cost to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostWrite {
    /// The pod.
    pub pod: ObjectKey,
    /// Uid that the pod must still have.
    pub uid: String,
    /// The cost (`controller.kubernetes.io/pod-deletion-cost`).
    pub cost: i32,
}
