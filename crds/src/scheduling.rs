//! Scheduling of a fleet's pods: the fields of a Pod, with bounds.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    scalars::{LABEL_KEY, LabelValue},
    selector::Selector,
};

/// Node affinity and pod affinity of the pods, as in a Pod.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Affinity {
    /// Nodes to run on, by their labels. Absent: any node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_affinity: Option<NodeAffinity>,
    /// Pods to run near. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_affinity: Option<PodAffinity>,
    /// Pods to stay away from. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_anti_affinity: Option<PodAffinity>,
}

/// Nodes that pods must, or preferably should, run on.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeAffinity {
    /// Nodes that pods must run on. Absent: any node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_during_scheduling_ignored_during_execution: Option<NodeSelector>,
    /// Nodes that are preferred, at most 8 entries. Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub preferred_during_scheduling_ignored_during_execution: Vec<PreferredNodes>,
}

/// Terms that select nodes; a node must match at least one.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelector {
    /// Terms that select nodes, 1 to 8; a node must match at least one.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub node_selector_terms: Vec<NodeTerm>,
}

/// Requirements that a node must meet, all of them.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeTerm {
    /// Requirements on node labels, at most 8. Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Vec<NodeRequirement>,
    /// Requirements on node fields, such as metadata.name, at most 8. Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_fields: Vec<NodeRequirement>,
}

/// A requirement on a label or field of nodes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRequirement {
    /// Label key or field name, 1 to 317 characters.
    #[schemars(length(min = 1, max = 317), pattern(LABEL_KEY))]
    pub key: String,
    /// How the label or field is compared: In, NotIn, Exists, DoesNotExist, Gt or Lt.
    pub operator: NodeOperator,
    /// Values to compare with, at most 16: one or more for In and NotIn, exactly one for Gt and Lt, none for Exists and
    /// DoesNotExist.
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

/// Nodes that are preferred over others.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreferredNodes {
    /// Weight of the preference, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub weight: i32,
    /// Nodes that are preferred.
    pub preference: NodeTerm,
}

/// Pods to run near, or to stay away from.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodAffinity {
    /// Terms that must hold for a pod to be scheduled, at most 8. Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub required_during_scheduling_ignored_during_execution: Vec<PodTerm>,
    /// Terms that are preferred, at most 8. Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub preferred_during_scheduling_ignored_during_execution: Vec<PreferredPods>,
}

/// A set of pods and the topology domain that counts as near.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodTerm {
    /// Node label whose value defines a topology domain, such as kubernetes.io/hostname; pods on nodes with the same
    /// value are near each other.
    #[schemars(length(min = 1, max = 317), pattern(LABEL_KEY))]
    pub topology_key: String,
    /// Labels of the pods. Absent: the pods of this gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<Selector>,
    /// Namespaces of the pods, at most 16. Absent: the gateway's own namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub namespaces: Vec<LabelValue>,
    /// Labels of the pods' namespaces. Absent: only `namespaces` applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<Selector>,
}

/// Pod affinity that is preferred, not required.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreferredPods {
    /// Weight of the preference, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub weight: i32,
    /// Pods to run near, or to stay away from.
    pub pod_affinity_term: PodTerm,
}

/// How pods are spread over topology domains, as in a Pod.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopologySpread {
    /// Maximum difference between the number of pods in a topology domain and in the domain with the fewest pods, 1 to
    /// 100.
    #[schemars(range(min = 1, max = 100))]
    pub max_skew: i32,
    /// Node label whose values are the topology domains, such as topology.kubernetes.io/zone.
    #[schemars(length(min = 1, max = 317), pattern(LABEL_KEY))]
    pub topology_key: String,
    /// What happens to a pod that would exceed `maxSkew`. DoNotSchedule: the pod stays pending. ScheduleAnyway: the pod
    /// is scheduled to keep the skew small.
    pub when_unsatisfiable: WhenUnsatisfiable,
    /// Labels of the pods that are counted. Absent: the pods of this gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<Selector>,
    /// Minimum number of topology domains, 1 to 100, for `whenUnsatisfiable: DoNotSchedule`. Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub min_domains: Option<i32>,
}

/// What happens to a pod that would exceed the skew.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum WhenUnsatisfiable {
    DoNotSchedule,
    ScheduleAnyway,
}
