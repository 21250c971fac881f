//! The desired state of the objects that the operator writes: children of gateways, sidecars in pods, HPAs.

pub mod autoscaler;
pub mod ca;
pub mod ca_bundles;
pub mod drainer;
mod durability;
pub mod fleets;
pub mod gateway;
pub mod holder;
pub(crate) mod jetstream;
pub mod metrics_endpoints;
mod network_policy;
pub mod plan;
pub mod pods;
mod probe;
pub mod revision;
pub mod serving;
pub mod sidecar;
pub mod tuning;
mod tunnels;
