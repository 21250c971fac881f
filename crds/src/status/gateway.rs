//! Status of a `ForwardGateway`, as reported by the operator.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::status::parts::{Condition, ForwardAddress};

/// Observed state of a `ForwardGateway`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForwardGatewayStatus {
    /// The `metadata.generation` that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions of the gateway: Accepted, Programmed and Ready; with `autoscaling` also ScalingActive. Outdated,
    /// Reconciling and Stalled are present only while True, ClaimsDrained and ClaimsMounted only while False.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Addresses at which clients reach the fleet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<ForwardAddress>,
    /// Number of pods in the fleet, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i32>,
    /// Label selector of the fleet's pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,
    /// Number of PersistentVolumeClaims of removed proxies from which messages are still being sent to their sinks.
    /// Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub draining_claims: Option<u32>,
    /// Proxy image in the pod template of the fleet's Deployment or StatefulSet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub proxy_image: Option<String>,
    /// Number of PortForwards that are attached to the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub attached_forwards: Option<u32>,
}
