//! Replicas that follow live connections: autoscaling of gateway fleets and of workloads with sidecars.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Bounds and targets of the HorizontalPodAutoscaler (HPA) that scales a fleet. At least one of targetConnectionsPerPod
/// and metrics is required.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.targetConnectionsPerPod) || has(self.metrics) && self.metrics.size() > 0").message("autoscaling needs targetConnectionsPerPod or metrics"),
    validation = Rule::new("!has(self.minReplicas) || self.minReplicas <= self.maxReplicas").message("autoscaling.minReplicas must not be more than maxReplicas")
)]
pub struct Autoscaling {
    /// Minimum number of proxies in the fleet, 1 to 1000. Absent: 2, or maxReplicas if that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: Option<i32>,
    /// Maximum number of proxies in the fleet, 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// Target for the average number of live TCP connections and UDP flows per proxy, 1 to 1000000. Absent: the fleet
    /// scales only on metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub target_connections_per_pod: Option<i32>,
    /// Further metrics in the format of a HorizontalPodAutoscaler (autoscaling/v2), at most 15. Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 15), extend("x-kubernetes-list-type" = "atomic"))]
    pub metrics: Vec<Raw>,
    /// How fast the HPA scales up and down, in the format of a HorizontalPodAutoscaler (autoscaling/v2). Absent: the
    /// defaults of Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<Raw>,
}

/// Bounds and targets of the HorizontalPodAutoscaler (HPA) that scales the workload whose pods have the sidecars. At
/// least one of targetConnectionsPerPod and metrics is required.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.targetConnectionsPerPod) || has(self.metrics) && self.metrics.size() > 0").message("autoscaling of a workload needs targetConnectionsPerPod or metrics"),
    validation = Rule::new("!has(self.minReplicas) || self.minReplicas <= self.maxReplicas").message("autoscaling.minReplicas of a workload must not be more than maxReplicas")
)]
pub struct WorkloadAutoscaling {
    /// The workload to scale, in the namespace of the PortForward.
    pub target_ref: TargetRef,
    /// Minimum number of pods of the workload, 1 to 1000. Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: Option<i32>,
    /// Maximum number of pods of the workload, 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// Target for the average number of live TCP connections and UDP flows of this forward per pod, 1 to 1000000.
    /// Absent: the workload scales only on metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub target_connections_per_pod: Option<i32>,
    /// Further metrics in the format of a HorizontalPodAutoscaler (autoscaling/v2), at most 15. Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 15), extend("x-kubernetes-list-type" = "atomic"))]
    pub metrics: Vec<Raw>,
    /// How fast the HPA scales up and down, in the format of a HorizontalPodAutoscaler (autoscaling/v2). Absent: the
    /// defaults of Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<Raw>,
}

/// A workload in the namespace of the PortForward.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// API version of the workload; only apps/v1 is supported. Absent: apps/v1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<TargetVersion>,
    /// Kind of the workload: Deployment, StatefulSet or ReplicaSet.
    pub kind: TargetKind,
    /// Name of the workload.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// API versions of workloads.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum TargetVersion {
    #[default]
    #[serde(rename = "apps/v1")]
    AppsV1,
}

/// Kinds of workloads.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum TargetKind {
    #[default]
    Deployment,
    StatefulSet,
    ReplicaSet,
}

impl TargetKind {
    /// Name of the kind, as in manifests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::ReplicaSet => "ReplicaSet",
        }
    }
}

/// An object of another API, passed through unchanged and validated by that API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Raw(pub Map<String, Value>);

impl JsonSchema for Raw {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Raw".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
    }
}
