//! What the operator reports: one status for each kind, and the parts they share.

mod gateway;
mod parts;
mod portforward;

pub use self::{
    gateway::ForwardGatewayStatus,
    parts::{Condition, ForwardAddress},
    portforward::{
        AcceptedHeaders, BackendHealth, DataPlaneStatus, ListenerStatus, PortForwardStatus, RejectedListener,
    },
};
