//! Namespaces that a gateway admits.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::selector::Selector;

/// A set of namespaces.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.from == 'Selector') == has(self.selector)").message("selector must be set if, and only if, from is Selector"))]
pub struct NamespaceScope {
    /// How namespaces are chosen. Same: the gateway's own namespace. All: every namespace. Selector: namespaces whose
    /// labels match `selector`.
    pub from: From,
    /// Labels of the namespaces; required with `from: Selector`, and not allowed otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
}

/// Ways to choose namespaces.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum From {
    Same,
    All,
    Selector,
}
