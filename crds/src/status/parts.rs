//! Parts that the statuses of all kinds share.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// A condition that follows the Kubernetes API conventions.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Type of the condition, in PascalCase.
    #[serde(rename = "type")]
    #[schemars(length(max = 316))]
    pub type_: String,
    /// Status of the condition: True, False or Unknown.
    #[schemars(length(max = 7))]
    pub status: String,
    /// Generation of the object that the condition describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Time of the last change of `status`, RFC 3339.
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// Reason for the status as one word, in CamelCase.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// Reason for the status as a sentence, with the remedy if there is something to do.
    #[schemars(length(max = 32768))]
    pub message: String,
}

/// An address at which clients reach a forward.
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
