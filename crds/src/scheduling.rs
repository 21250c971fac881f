//! Where the scheduler puts the pods of a fleet: the same fields as in a Pod, with bounds.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{scalars::LabelValue, selector::Selector};

/// Which nodes, and which neighbours, the pods want or avoid; the same as in a Pod.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Affinity {
    /// Nodes, by their labels. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_affinity: Option<NodeAffinity>,
    /// Pods to be near to. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_affinity: Option<PodAffinity>,
    /// Pods to be away from. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_anti_affinity: Option<PodAffinity>,
}

/// Nodes that pods must, or should, run on.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeAffinity {
    /// Nodes of which one term holds. Absent: any node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_during_scheduling_ignored_during_execution: Option<NodeSelector>,
    /// Nodes that are liked better, at most 8. Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub preferred_during_scheduling_ignored_during_execution: Vec<PreferredNodes>,
}

/// Nodes by terms of which one must hold.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelector {
    /// The terms, 1 to 8.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub node_selector_terms: Vec<NodeTerm>,
}

/// Nodes that fulfil all requirements.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeTerm {
    /// Requirements on labels, at most 8. Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Vec<NodeRequirement>,
    /// Requirements on fields, such as metadata.name, at most 8. Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_fields: Vec<NodeRequirement>,
}

/// One requirement on nodes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRequirement {
    /// Label or field.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// In, NotIn, Exists, DoesNotExist, Gt or Lt.
    pub operator: NodeOperator,
    /// Values: one or more for In and NotIn, one for Gt and Lt, none for the others; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub values: Vec<LabelValue>,
}

/// Operators of a requirement on nodes.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum NodeOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

/// Nodes that are liked better than others.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreferredNodes {
    /// How much, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub weight: i32,
    /// Which.
    pub preference: NodeTerm,
}

/// Pods to be near to, or away from.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodAffinity {
    /// What must hold, at most 8. Absent: nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub required_during_scheduling_ignored_during_execution: Vec<PodTerm>,
    /// What is liked better, at most 8. Absent: nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub preferred_during_scheduling_ignored_during_execution: Vec<PreferredPods>,
}

/// Pods, and how near is near.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodTerm {
    /// Label of nodes within one value of which pods are near, such as kubernetes.io/hostname.
    #[schemars(length(min = 1, max = 317))]
    pub topology_key: String,
    /// Which pods. Absent: those of this gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<Selector>,
    /// Of which namespaces, at most 16. Absent: of the gateway's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub namespaces: Vec<LabelValue>,
    /// Of which namespaces, by their labels. Absent: as namespaces says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<Selector>,
}

/// Neighbours that are liked better than others.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreferredPods {
    /// How much, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub weight: i32,
    /// Which.
    pub pod_affinity_term: PodTerm,
}

/// How pods are spread over nodes; the same as in a Pod.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopologySpread {
    /// How many pods more than the least may be in one place, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub max_skew: i32,
    /// Label of nodes whose values are the places, such as topology.kubernetes.io/zone.
    #[schemars(length(min = 1, max = 317))]
    pub topology_key: String,
    /// What if it cannot be kept: DoNotSchedule, or ScheduleAnyway.
    pub when_unsatisfiable: WhenUnsatisfiable,
    /// Which pods are counted. Absent: those of this gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<Selector>,
    /// How many places there must be, with DoNotSchedule. Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub min_domains: Option<i32>,
}

/// What a pod does that cannot be spread as wanted.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum WhenUnsatisfiable {
    DoNotSchedule,
    ScheduleAnyway,
}
