//! Objects and patches as the operator wants them: children of gateways, sidecars in pods, autoscalers.

pub mod autoscaler;
pub mod ca;
pub mod gateway;
pub mod holder;
pub mod sidecar;
pub mod tuning;
