//! What users may customise in the pods of a fleet.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    scalars::{
        ANNOTATION_KEYS, ANNOTATION_KEYS_MESSAGE, AnnotationValue, LABEL_KEY, LABEL_KEYS, LABEL_KEYS_MESSAGE,
        LabelValue, Quantity,
    },
    scheduling::{Affinity, TopologySpread},
};

/// Additions to the pods of a fleet. A change rolls out the fleet.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels to add to the pods, at most 16. Labels of portlane.dev and app.kubernetes.io cannot be overridden.
    /// Absent: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "x-kubernetes-validations" = [{"rule": LABEL_KEYS, "message": LABEL_KEYS_MESSAGE}]))]
    pub labels: BTreeMap<String, LabelValue>,
    /// Annotations to add to the pods, at most 32. Absent: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "x-kubernetes-validations" = [{"rule": ANNOTATION_KEYS, "message": ANNOTATION_KEYS_MESSAGE}]))]
    pub annotations: BTreeMap<String, AnnotationValue>,
    /// Resources of the proxy container. Absent: requests of 100m CPU and 64Mi memory, a limit of 512Mi memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Labels that a node must have to run the pods, at most 16. Absent: any node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "x-kubernetes-validations" = [{"rule": LABEL_KEYS, "message": LABEL_KEYS_MESSAGE}]))]
    pub node_selector: BTreeMap<String, LabelValue>,
    /// Node taints that the pods tolerate, at most 16. Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// Node and pod affinity of the pods. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How the pods are spread over nodes and zones, at most 8 constraints. Absent: the defaults of the scheduler.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub topology_spread_constraints: Vec<TopologySpread>,
    /// Name of the PriorityClass of the pods, 1 to 253 characters. Absent: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub priority_class_name: Option<String>,
}

/// Compute resources.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Requested amounts, at most 8, such as cpu: 500m. Absent: the same as limits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub requests: BTreeMap<String, Quantity>,
    /// Limits, at most 8, such as memory: 256Mi. Absent: no limits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub limits: BTreeMap<String, Quantity>,
}

/// A toleration of node taints, as in a Pod.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// Key of the taint. Absent, with operator Exists: every taint is tolerated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317), pattern(LABEL_KEY))]
    pub key: Option<String>,
    /// Equal: the taint must have `value`. Exists: any value matches. Absent: Equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<TolerationOperator>,
    /// Value of the taint, for operator Equal. Absent: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<LabelValue>,
    /// Effect of the taint: NoSchedule, PreferNoSchedule or NoExecute. Absent: every effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
    /// How long a NoExecute taint is tolerated, 0 to 86400 seconds. Absent: forever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub toleration_seconds: Option<i64>,
}

/// Operators of a toleration.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum TolerationOperator {
    Equal,
    Exists,
}

/// Effects of a taint.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum TaintEffect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}
