//! Parts that the statuses of all kinds share.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// A condition of the object, with the fields of metav1.Condition.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Type of the condition, in CamelCase.
    #[serde(rename = "type")]
    #[schemars(length(max = 316))]
    pub type_: String,
    /// Status of the condition: True, False or Unknown.
    #[schemars(length(max = 7))]
    pub status: String,
    /// The `metadata.generation` that the condition describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Last time the condition transitioned from one status to another, in RFC 3339 format.
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// Machine-readable reason for the status, in CamelCase.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// Human-readable explanation of the status, with the remedy if action is needed.
    #[schemars(length(max = 32768))]
    pub message: String,
}

/// An address at which clients reach a forward or a gateway.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForwardAddress {
    /// Type of the address: `IPAddress` or `Hostname`.
    #[serde(rename = "type")]
    #[schemars(length(max = 32))]
    pub type_: String,
    /// IP address or host name.
    #[schemars(length(max = 253))]
    pub value: String,
}
