//! The CRDs as documents.

use kube::CustomResourceExt;
use serde_json::Value;

use crate::{agent::ForwardAgent, gateway::ForwardGateway, portforward::PortForward};

/// A generated CRD and the name of its file.
#[derive(Clone, Debug)]
pub struct CrdYaml {
    /// File name, relative to the folder of this crate.
    pub file: &'static str,
    /// The CRD as a JSON value.
    pub document: Value,
}

/// Every CRD that is installed in a cluster.
///
/// # Errors
/// A schema that does not serialise; the drift test catches that first.
pub fn crds() -> Result<Vec<CrdYaml>, serde_json::Error> {
    let mut all = vec![
        CrdYaml { file: "portlane.dev_portforwards.yaml", document: serde_json::to_value(PortForward::crd())? },
        CrdYaml { file: "portlane.dev_forwardgateways.yaml", document: serde_json::to_value(ForwardGateway::crd())? },
        CrdYaml { file: "portlane.dev_forwardagents.yaml", document: serde_json::to_value(ForwardAgent::crd())? },
    ];
    for crd in &mut all {
        plain(&mut crd.document);
    }
    Ok(all)
}

/// The documents of [`crds`]: the CRD of every kind of the group, as JSON.
///
/// # Errors
/// A schema that does not serialise; the drift test catches that first.
pub fn kinds() -> Result<Vec<Value>, serde_json::Error> {
    Ok(crds()?.into_iter().map(|crd| crd.document).collect())
}

/// Folder of the copies in the chart of the CRDs, relative to the folder of this crate.
pub const CHART: &str = "../charts/portlane-crds/templates";
/// Folder of the copies in the chart of the operator, which its value `crds.enabled` adds, relative to the folder of
/// this crate.
pub const OPERATOR_CHART: &str = "../charts/portlane/templates/crds";

/// The CRD as a template of the chart `portlane-crds`: the same document, with the labels and annotations of the chart's
/// values, and with the annotation that keeps the CRD when the chart is uninstalled, if the value `keep` is set.
#[must_use]
pub fn chart_template(yaml: &str) -> String {
    yaml.replacen("\nmetadata:\n", CHART_METADATA, 1)
}

const CHART_METADATA: &str = r#"
metadata:
  {{- with .Values.commonLabels }}
  labels:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- $kept := ternary (dict "helm.sh/resource-policy" "keep") dict .Values.keep }}
  {{- with merge $kept (.Values.commonAnnotations | default dict) }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
"#;

/// The CRD as a template of the chart `portlane`, for an installation by one command. A chart that depends on another
/// would need the other vendored beside it, by a step before every installation from a checkout.
#[must_use]
pub fn operator_chart_template(yaml: &str) -> String {
    let document = yaml.replacen("\nmetadata:\n", OPERATOR_CHART_METADATA, 1);
    format!("{{{{- if (.Values.crds).enabled }}}}\n{document}{{{{- end }}}}\n")
}

const OPERATOR_CHART_METADATA: &str = r#"
metadata:
  {{- $keep := dig "keep" true .Values.crds }}
  {{- $kept := ternary (dict "helm.sh/resource-policy" "keep") dict $keep }}
  {{- include "portlane.meta" (dict "root" . "annotations" $kept) | nindent 2 }}
"#;

/// Turns the generated schema into one that a person would have written for an API server.
///
/// - Rust's unsigned formats (`uint16`, …) become `int64`: an API server does not know them and warns about each.
///   The bounds stay.
/// - An optional field is absent, never null: null would be a third state that no rule covers.
/// - Bounds are whole numbers. Descriptions carry no Markdown and no line breaks of the source, because
///   `kubectl explain` prints both as they are.
fn plain(node: &mut Value) {
    match node {
        Value::Object(map) => {
            map.remove("nullable");
            let unsigned = map.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint"));
            if unsigned {
                map.insert("format".to_owned(), Value::from("int64"));
            }
            for bound in ["minimum", "maximum"] {
                if let Some(whole) = map.get(bound).and_then(Value::as_f64).and_then(whole_number) {
                    map.insert(bound.to_owned(), Value::from(whole));
                }
            }
            if let Some(Value::String(description)) = map.get_mut("description") {
                *description =
                    description.replace('`', "").replace("\n\n", "\u{1}").replace('\n', " ").replace('\u{1}', "\n\n");
            }
            if let Some(Value::Array(variants)) = map.get_mut("enum") {
                variants.retain(|variant| !variant.is_null());
            }
            map.values_mut().for_each(plain);
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        _ => {}
    }
}

#[allow(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
fn whole_number(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value.abs() < 1e15).then_some(value as i64)
}
