//! Status of a `ForwardAgent`, as reported by the operator.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::status::parts::Condition;

/// Observed state of a `ForwardAgent`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForwardAgentStatus {
    /// The `metadata.generation` that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, Enrolled, Connected and Ready; Reconciling and Stalled are present only while true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Name of the Secret whose key `join` is the join string, while there is one to redeem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub enrolment_secret: Option<String>,
    /// Connected instances, at most 16 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub instances: Vec<AgentInstance>,
}

/// A connected instance of an agent.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentInstance {
    /// Name that the instance gives itself.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Version of `portlane` that the instance runs.
    #[schemars(length(max = 63))]
    pub version: String,
    /// Proxies that the instance is connected to, out of the ready proxies of the gateway, such as `3/3`.
    #[schemars(length(max = 32))]
    pub carriers: String,
    /// Sidecars that the instance is connected to, out of those that the agent is to reach, such as `12/12`; absent if
    /// there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub sidecars: Option<String>,
}
