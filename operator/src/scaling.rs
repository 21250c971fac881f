//! Autoscalers (`HorizontalPodAutoscaler`) for fleets and for workloads with sidecars.
//!
//! One is made only if nobody else holds the replicas of its target: two that do would undo each other's work for ever.

mod apply;
mod holder;
mod manifest;

pub use self::{
    apply::{FAILED, apply, remove},
    holder::{REPLICAS, has_field, holder},
    manifest::{CONNECTIONS, Scaler, least, of_forward, of_gateway},
};

/// Field manager that keeps the replicas of a fleet while they pass from the operator to an autoscaler: a field that nobody
/// holds any more would go back to its default.
pub const HANDOVER: &str = "portlane-operator-handover";
/// Label of the scaler of a forward, with its name.
pub const FORWARD_LABEL: &str = "portlane.dev/forward";
