//! Outputs of the operator: writes to the API server, snapshots for streams, notices.

pub mod autoscalers;
pub mod children;
pub mod deletion_costs;
pub mod drainers;
pub mod enrolments;
pub mod events;
pub mod metrics_service;
pub mod notices;
pub mod publish;
pub mod status_writer;
pub mod webhook_ca;
