//! What the statuses of both kinds are made of.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// A condition by the Kubernetes API conventions.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Type of the condition, `PascalCase`.
    #[serde(rename = "type")]
    #[schemars(length(max = 316))]
    pub type_: String,
    /// True, False or Unknown.
    #[schemars(length(max = 7))]
    pub status: String,
    /// Generation of the object that the condition is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When `status` last changed, RFC 3339.
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// Why, one word in `CamelCase`.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// Why, for a person, with what to do.
    #[schemars(length(max = 32768))]
    pub message: String,
}

/// An address under which a forward is reached.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForwardAddress {
    /// `IPAddress` or `Hostname`.
    #[serde(rename = "type")]
    #[schemars(length(max = 32))]
    pub type_: String,
    /// The address.
    #[schemars(length(max = 253))]
    pub value: String,
}
