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
    /// Conditions of the agent: Accepted, Enrolled, Connected and Ready. Reconciling and Stalled are present only while
    /// True.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Name of the Secret whose key `join` contains the join string. Absent: there is no join string to redeem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub enrolment_secret: Option<String>,
    /// Connected instances of the agent; at most 16 are listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub instances: Vec<AgentInstance>,
}

/// A connected instance of an agent.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentInstance {
    /// Name of the instance, as it reports it.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Version of `portlane` that the instance runs.
    #[schemars(length(max = 63))]
    pub version: String,
    /// Number of proxies of the gateway that the instance is connected to, out of the ready ones, such as `3/3`.
    #[schemars(length(max = 32))]
    pub carriers: String,
    /// Number of sidecars that the instance is connected to, out of those that it should connect to, such as `12/12`.
    /// Absent: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub sidecars: Option<String>,
}
