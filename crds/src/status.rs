//! Status of each kind, as reported by the operator.

mod agent;
mod gateway;
mod parts;
mod portforward;

pub use self::{
    agent::{AgentInstance, ForwardAgentStatus},
    gateway::ForwardGatewayStatus,
    parts::{Condition, ForwardAddress},
    portforward::{
        AcceptedHeaders, BackendHealth, DataPlaneStatus, Delivery, ListenerStatus, PortForwardStatus, RejectedListener,
    },
};
