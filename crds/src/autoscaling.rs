//! Replicas that follow live connections.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How many proxies a fleet has, by their load. A HorizontalPodAutoscaler is made from it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.targetConnectionsPerPod) || has(self.metrics) && self.metrics.size() > 0").message("autoscaling needs targetConnectionsPerPod or metrics"),
    validation = Rule::new("!has(self.minReplicas) || self.minReplicas <= self.maxReplicas").message("autoscaling.minReplicas must not be more than maxReplicas")
)]
pub struct Autoscaling {
    /// Least proxies, 1 to 1000. Absent: 2, or maxReplicas if that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: Option<i32>,
    /// Most proxies, 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// Live connections and flows that a proxy should have on average, 1 to 1000000. Absent: metrics decide alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub target_connections_per_pod: Option<i32>,
    /// More metrics, at most 15, as in a HorizontalPodAutoscaler (autoscaling/v2). Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 15), extend("x-kubernetes-list-type" = "atomic"))]
    pub metrics: Vec<Raw>,
    /// How fast it grows and shrinks, as in a HorizontalPodAutoscaler (autoscaling/v2). Absent: as Kubernetes has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<Raw>,
}

/// How many pods the workload has that carries the sidecars, by their load. A HorizontalPodAutoscaler is made from it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.targetConnectionsPerPod) || has(self.metrics) && self.metrics.size() > 0").message("autoscaling of a workload needs targetConnectionsPerPod or metrics"),
    validation = Rule::new("!has(self.minReplicas) || self.minReplicas <= self.maxReplicas").message("autoscaling.minReplicas of a workload must not be more than maxReplicas")
)]
pub struct WorkloadAutoscaling {
    /// The workload that is scaled, in this object's namespace.
    pub target_ref: TargetRef,
    /// Least pods, 1 to 1000. Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: Option<i32>,
    /// Most pods, 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// Live connections and flows of this forward that a pod should have on average, 1 to 1000000. Absent: metrics decide
    /// alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub target_connections_per_pod: Option<i32>,
    /// More metrics, at most 15, as in a HorizontalPodAutoscaler (autoscaling/v2). Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 15), extend("x-kubernetes-list-type" = "atomic"))]
    pub metrics: Vec<Raw>,
    /// How fast it grows and shrinks, as in a HorizontalPodAutoscaler (autoscaling/v2). Absent: as Kubernetes has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<Raw>,
}

/// A workload of the forward's namespace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// apps/v1. Absent: apps/v1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<TargetVersion>,
    /// Deployment, StatefulSet or ReplicaSet.
    pub kind: TargetKind,
    /// Its name.
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
    /// The name of the kind.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::ReplicaSet => "ReplicaSet",
        }
    }
}

/// Part of another API, passed on as it is; that API checks it.
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
