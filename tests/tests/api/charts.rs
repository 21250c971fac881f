//! The charts and the plain manifests: what real helm and kustomize render, and what API servers accept of it.

mod goldens;
mod installed;
mod manifests;
mod mirror;
mod monitoring;
mod network;
mod notes;
mod packages;
mod refused;
mod templates;
mod tunnels;
mod values;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use harness::{CHARTS, CommandOutput, OPERATOR, helm_command};
use serde_json::{Map, Value};

/// Kubernetes version that charts are rendered for.
const KUBERNETES: &str = "1.34.0";
/// Labels by which helm knows its objects. Plain manifests have none of them.
const LABELS_OF_HELM: [&str; 2] = ["helm.sh/chart", "app.kubernetes.io/managed-by"];
/// Annotation by which helm keeps an object when it uninstalls the others.
const KEEP: &str = "helm.sh/resource-policy";

/// Renders a chart into the namespace `default` with values, which are YAML.
fn render(chart: &str, values: &str) -> CommandOutput {
    render_in("default", chart, &["--values", "-"], values)
}

/// Renders a chart into a namespace, with these options and a text on standard input.
fn render_in(namespace: &str, chart: &str, options: &[&str], input: &str) -> CommandOutput {
    let template = ["template", "portlane", chart, "--namespace", namespace, "--kube-version", KUBERNETES];
    CommandOutput::of(helm_command().args(template).args(options), input)
}

/// Renders the chart of the operator into its usual namespace: a file with values, or the defaults.
fn render_case(file: Option<&Path>) -> String {
    let file = file.map(|file| file.display().to_string());
    let options: Vec<&str> = file.iter().flat_map(|file| ["--values", file.as_str()]).collect();
    render_in(OPERATOR, CHARTS[1], &options, "").ok()
}

/// A path in the checkout.
fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The files with values for the chart of the operator, which `ct` of the helm project reads too.
fn cases() -> Vec<PathBuf> {
    let folder = fs::read_dir(checkout("charts/portlane/ci")).expect("a folder");
    let mut files: Vec<PathBuf> = folder.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

/// The file with values of a case.
fn case(name: &str) -> PathBuf {
    checkout(&format!("charts/portlane/ci/{name}-values.yaml"))
}

/// A rendered object.
#[derive(Clone, Debug)]
struct Document {
    /// Template of the chart, such as `rbac.yaml`. Empty: not rendered by helm.
    template: String,
    /// The document without its separator and without the comment that names the template.
    text: String,
    /// The object.
    object: Value,
}

impl Document {
    /// All objects of a render, in their order.
    fn all(rendered: &str) -> Vec<Self> {
        let rendered = format!("\n{rendered}");
        let documents = rendered.split("\n---\n").filter(|text| !text.trim().is_empty()).map(|text| {
            let source = text.strip_prefix("# Source: ").and_then(|text| text.split_once('\n'));
            let (source, text) = source.unwrap_or(("", text));
            let template = source.split_once("/templates/").map_or("", |(_, template)| template);
            let object = serde_yaml::from_str(text).expect("YAML");
            Self { template: template.to_owned(), text: format!("{}\n", text.trim_matches('\n')), object }
        });
        documents.filter(|document| !document.object.is_null()).collect()
    }

    /// `KIND/NAME`, with the namespace if that is not the operator's.
    fn key(&self) -> String {
        let text = |pointer| self.object.pointer(pointer).and_then(Value::as_str);
        let kind = text("/kind").expect("a kind");
        let name = text("/metadata/name").expect("objects have names");
        match text("/metadata/namespace").filter(|namespace| *namespace != OPERATOR) {
            Some(namespace) => format!("{kind}/{name} in {namespace}"),
            None => format!("{kind}/{name}"),
        }
    }

    /// The object without what is helm's. Lists of things with different names are maps, and so are rules of roles:
    /// their order does not count.
    fn essence(&self) -> Value {
        let mut object = self.object.clone();
        if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
            annotations.remove(KEEP);
        }
        essence(object)
    }
}

/// Objects by [`Document::key`].
fn essences(documents: &[Document]) -> BTreeMap<String, Value> {
    documents.iter().map(|document| (document.key(), document.essence())).collect()
}

fn essence(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let map = by_name(&items).or_else(|| by_resource(&items));
            map.unwrap_or_else(|| items.into_iter().map(essence).collect())
        }
        Value::Object(mut map) => {
            for (field, labels) in &mut map {
                if let (true, Some(labels)) = (field == "labels", labels.as_object_mut()) {
                    labels.retain(|name, _| !LABELS_OF_HELM.contains(&name.as_str()));
                }
            }
            map.retain(|field, value| field != "annotations" || value.as_object().is_none_or(|map| !map.is_empty()));
            Value::Object(map.into_iter().map(|(name, value)| (name, essence(value))).collect())
        }
        other => other,
    }
}

/// A list as a map by the field `name`, if all items have different names.
fn by_name(items: &[Value]) -> Option<Value> {
    let named = items.iter().map(|item| Some((item.get("name")?.as_str()?.to_owned(), essence(item.clone()))));
    let named: Map<String, Value> = named.collect::<Option<_>>()?;
    (!items.is_empty() && named.len() == items.len()).then_some(Value::Object(named))
}

/// The rules of a role as a map: the verbs of `RESOURCES of GROUP named NAMES`.
fn by_resource(items: &[Value]) -> Option<Value> {
    let words = |rule: &Value, field: &str| -> Option<String> {
        let words: Option<Vec<&str>> = rule.get(field)?.as_array()?.iter().map(Value::as_str).collect();
        words.map(|words| words.join(", "))
    };
    let mut rules = BTreeMap::<String, Vec<String>>::new();
    for rule in items {
        let mut key = words(rule, "resources")?;
        for (field, before) in [("apiGroups", " of "), ("resourceNames", " named ")] {
            let words = words(rule, field).filter(|words| !words.is_empty());
            key += &words.map(|words| format!("{before}{words}")).unwrap_or_default();
        }
        rules.entry(key).or_default().push(words(rule, "verbs")?);
    }
    (!rules.is_empty()).then(|| rules.into_iter().map(|(key, verbs)| (key, Value::from(verbs.join(", ")))).collect())
}

/// What to do about a generated file that differs.
const REMEDY: &str = "`UPDATE=1 cargo test -p portlane-tests --test api charts::` rewrites the file; review the diff";

/// The text of a committed file, which is empty if there is none. `UPDATE=1` writes this text first.
fn committed(path: &Path, generated: &str) -> String {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, generated).expect("the file is written");
    }
    fs::read_to_string(path).unwrap_or_default()
}
