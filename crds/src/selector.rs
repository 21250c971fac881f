//! A label selector with bounds, so that it fits the CEL cost budget and cannot grow a cache without limit.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalars::{LABEL_KEY, LABEL_KEYS, LABEL_KEYS_MESSAGE, LabelValue};

/// Selects objects by labels; all requirements must match. An empty selector matches everything.
///
/// The semantics are those of metav1.LabelSelector in the Kubernetes API.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels that an object must have with exactly these values, at most 16. Absent: no requirement.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "x-kubernetes-validations" = [{"rule": LABEL_KEYS, "message": LABEL_KEYS_MESSAGE}]))]
    pub match_labels: BTreeMap<String, LabelValue>,
    /// Requirements with operators, at most 16. Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Vec<SelectorRequirement>,
}

/// A requirement on one label.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)").message("values must be given for In and NotIn, and for no other operator"))]
pub struct SelectorRequirement {
    /// Key of the label, 1 to 317 characters.
    #[schemars(length(min = 1, max = 317), pattern(LABEL_KEY))]
    pub key: String,
    /// How the label is compared: In, `NotIn`, Exists or `DoesNotExist`.
    pub operator: SelectorOperator,
    /// Values for In and `NotIn`, 1 to 16; not allowed with Exists and `DoesNotExist`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub values: Vec<LabelValue>,
}

/// Operators of a selector requirement.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum SelectorOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Selector {
    /// Whether the selector matches an object with these labels.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(&value.0))
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }
}

impl SelectorRequirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.iter().any(|wanted| wanted.0 == *value));
        match self.operator {
            SelectorOperator::In => listed,
            SelectorOperator::NotIn => !listed,
            SelectorOperator::Exists => value.is_some(),
            SelectorOperator::DoesNotExist => value.is_none(),
        }
    }
}
