//! When each output is due: small state machines that take inputs and the time, and return effects for the driver to
//! run.
//!
//! Times are durations since the driver started. A state machine never sleeps or retries by itself: the driver calls a
//! state machine again when the machine is due, or at the next tick.

pub mod autoscalers;
pub mod children;
pub mod cut_off;
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
    /// Write the deletion cost of a pod.
    WriteCost(CostWrite),
}

/// A status to write.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusWrite {
    /// The object whose status it is.
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
