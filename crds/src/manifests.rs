//! The CRDs as documents.

use kube::CustomResourceExt;
use serde_json::Value;

use crate::{gateway::ForwardGateway, portforward::PortForward};

/// A generated CRD and the file it is kept in.
#[derive(Clone, Debug)]
pub struct CrdYaml {
    /// File name beside this crate's manifest.
    pub file: &'static str,
    /// The CRD as a JSON value.
    pub document: Value,
}

/// Every CRD of the group, as it is installed in a cluster and evaluated on a laptop.
///
/// # Errors
/// A type whose schema does not serialise; the drift test would see it first.
pub fn crds() -> Result<Vec<CrdYaml>, serde_json::Error> {
    let mut all = vec![
        CrdYaml { file: "portlane.dev_portforwards.yaml", document: serde_json::to_value(PortForward::crd())? },
        CrdYaml { file: "portlane.dev_forwardgateways.yaml", document: serde_json::to_value(ForwardGateway::crd())? },
    ];
    for crd in &mut all {
        plain(&mut crd.document);
    }
    Ok(all)
}

/// Where the chart has its copies, from this crate's folder.
pub const CHART: &str = "../charts/portlane-crds/templates";

/// A CRD as a template of the chart: the same, and kept when the chart goes if its value `keep` says so.
#[must_use]
pub fn chart_template(yaml: &str) -> String {
    let kept =
        "\nmetadata:\n  {{- if .Values.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\n";
    yaml.replacen("\nmetadata:\n", kept, 1)
}

/// Makes the generated schema what a person would have written for an API server.
///
/// - Rust's integer formats (`uint16`, …) mean nothing to an API server, which warns about each; the bounds stay.
/// - An optional field is absent, never null: a null would be a third state that no rule speaks of.
/// - Bounds are whole numbers, and descriptions carry no Markdown and no line ends of the source, as `kubectl explain`
///   prints them as they are.
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
