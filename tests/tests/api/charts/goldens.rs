//! Cases of values (`charts/portlane/ci`) and what they change in the objects that helm renders with the defaults:
//! `goldens/CASE.yaml`. `UPDATE=1 cargo test -p portlane-tests --test api charts::` rewrites these files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use harness::{CHARTS, CommandOutput, ControlPlane, helm_command};
use serde_json::{Map, Value};

use super::{
    Document, KUBERNETES, REMEDY, cases, checkout, committed,
    manifests::dry_run,
    monitoring::{add_kinds, shorten_monitoring},
    render_case,
};

on_both!(the_api_server_accepts_every_case);

/// What a file of `goldens` begins with.
const HEADER: &str = "\
# What the values change in the objects of the defaults: a merge patch of each object. null: not there.
# Lists of things with names are maps, and so are rules of roles.
";

#[test]
fn each_case_changes_what_its_golden_file_says() {
    let defaults = Document::all(&render_case(None));
    for case in cases() {
        let changes = changes(&defaults, &Document::all(&render_case(Some(&case))));
        assert!(!changes.is_empty(), "{} changes nothing", case.display());
        let golden = checkout(&format!("tests/tests/api/charts/goldens/{}.yaml", name(&case)));
        let text = format!("{HEADER}{}", serde_yaml::to_string(&changes).expect("YAML"));
        // Values are compared, because YAML has many ways to write one.
        let expected: BTreeMap<String, Value> = serde_yaml::from_str(&committed(&golden, &text)).unwrap_or_default();
        assert!(changes == expected, "{} is out of date: {REMEDY}\n{text}", golden.display());
    }
}

#[test]
fn helm_lints_every_case_strictly() {
    let lint = |chart: &str, options: &[&str]| {
        let lint = ["lint", "--strict", chart, "--kube-version", KUBERNETES];
        CommandOutput::of(helm_command().args(lint).args(options), "").ok();
    };
    for chart in CHARTS {
        lint(chart, &[]);
    }
    for case in cases() {
        lint(CHARTS[1], &["--values", &case.display().to_string()]);
    }
}

#[test]
fn every_value_is_set_by_a_case() {
    let read = |path: &Path| serde_yaml::from_str::<Value>(&fs::read_to_string(path).expect("a file")).expect("YAML");
    let cases: Vec<Value> = cases().iter().map(|case| read(case)).collect();
    let schema = read(&checkout("charts/portlane/values.schema.json"));
    let mut missing = leaves(&schema, "");
    missing.retain(|pointer| !cases.iter().any(|case| case.pointer(pointer).is_some()));
    assert!(missing.is_empty(), "add these values to a file of charts/portlane/ci: {missing:?}");
}

/// Of each case one dry run, in namespaces that exist. No warning may come back.
fn the_api_server_accepts_every_case(server: &ControlPlane) {
    add_kinds(server);
    let rendered: Vec<String> = cases().iter().map(|case| render_case(Some(case))).collect();
    dry_run(server, &rendered.join("\n---\n"));
}

/// The name of a case: its file without `-values.yaml`.
fn name(case: &Path) -> String {
    let file = case.file_name().and_then(|name| name.to_str()).expect("a name");
    file.strip_suffix("-values.yaml").expect("files of ct end with -values.yaml").to_owned()
}

/// JSON pointers of the values that a schema describes. A value without properties is a leaf.
fn leaves(schema: &Value, parent: &str) -> Vec<String> {
    let properties = schema.get("properties").and_then(Value::as_object);
    match properties.filter(|properties| !properties.is_empty()) {
        None => vec![parent.to_owned()],
        Some(properties) => {
            properties.iter().flat_map(|(name, value)| leaves(value, &format!("{parent}/{name}"))).collect()
        }
    }
}

/// What differs, by the key of the object in `before`, or in `after` if the object is new.
fn changes(before: &[Document], after: &[Document]) -> BTreeMap<String, Value> {
    let keys = |documents: &[Document]| documents.iter().map(Document::key).collect::<BTreeSet<_>>();
    let (old, new) = (keys(before), keys(after));
    let mut gone: Vec<&Document> = before.iter().filter(|document| !new.contains(&document.key())).collect();
    let mut changes = BTreeMap::new();
    for document in after {
        let key = document.key();
        let before = if old.contains(&key) {
            before.iter().find(|before| before.key() == key)
        } else {
            // Renamed: an object of the same kind by the same template.
            let same = |before: &&Document| {
                before.template == document.template && before.object["kind"] == document.object["kind"]
            };
            gone.iter().position(same).map(|place| gone.remove(place))
        };
        match before {
            Some(before) => {
                let difference = difference(&before.essence(), &document.essence());
                changes.extend(difference.map(|difference| (before.key(), difference)));
            }
            None => {
                changes.insert(key, shortened(document));
            }
        }
    }
    changes.extend(gone.iter().map(|document| (document.key(), Value::Null)));
    changes
}

/// An object without what files of the repository have: the spec of a CRD, rules of alerts, dashboards.
fn shortened(document: &Document) -> Value {
    let mut object = document.essence();
    if object["kind"] == "CustomResourceDefinition" {
        let name = object["metadata"]["name"].as_str().expect("a name");
        let (plural, group) = name.split_once('.').expect("PLURAL.GROUP");
        let file = format!("crds/{group}_{plural}.yaml");
        let plain = Document::all(&fs::read_to_string(checkout(&file)).expect("a CRD"));
        assert_eq!(plain[0].essence()["spec"], object["spec"], "{name}");
        object["spec"] = Value::from(format!("that of {file}"));
    }
    shorten_monitoring(&mut object);
    object
}

/// The merge patch (RFC 7396) from one value to another.
fn difference(before: &Value, after: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return (before != after).then(|| after.clone());
    };
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = names.into_iter().filter_map(|name| {
        let change = match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) => difference(old, new)?,
            (None, Some(new)) => new.clone(),
            (_, None) => Value::Null,
        };
        Some((name.clone(), change))
    });
    let changed: Map<String, Value> = changed.collect();
    (!changed.is_empty()).then_some(Value::Object(changed))
}
