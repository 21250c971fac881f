//! Status of each kind, as reported by the operator.

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
