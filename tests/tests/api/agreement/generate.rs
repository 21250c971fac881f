//! Rows generated from the CRDs: complete manifests, and variants of them. A variant has one value replaced (by a value
//! on a bound, beyond a bound, or of another type), left out, or misspelt.

use serde_json::{Map, Value, json};

use super::rows::{Bound, Row};

const COMPLETE: &str = include_str!("complete.yaml");

/// One row for each variant of each value of each complete manifest.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for crd in crds::crds().expect("CRDs") {
        let kind = crd.document["spec"]["names"]["kind"].as_str().expect("kind").to_owned();
        let schema = &crd.document["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        for (number, manifest) in manifests(&kind).into_iter().enumerate() {
            let mut found = Vec::new();
            walk(&schema["properties"]["spec"], &manifest["spec"], "/spec", &mut found);
            rows.push(row(&format!("{kind} {number}: complete"), &manifest));
            for (pointer, variant, value) in found {
                let changed = set(&manifest, &pointer, value);
                let row = row(&format!("{kind} {number}: {pointer}: {variant}"), &changed);
                rows.push(Row { bound: bound(&pointer, variant), ..row });
            }
        }
    }
    rows
}

/// Variants on a bound of their field, and variants beyond a bound.
const ON: [&str; 3] = ["the least", "the most", "the most items"];
const BEYOND: [&str; 7] = [
    "less than the least",
    "more than the most",
    "more items than the most",
    "fewer items than the least",
    "longer than the longest",
    "shorter than the shortest",
    "not one of them",
];

fn bound(pointer: &str, variant: &str) -> Option<Bound> {
    let beyond = BEYOND.contains(&variant);
    let part = |part: &str| if part.parse::<usize>().is_ok() { format!("[{part}]") } else { format!(".{part}") };
    let field: String = pointer.split('/').skip(1).map(|name| part(&unescape(name))).collect();
    (beyond || ON.contains(&variant)).then(|| Bound { field: field[1..].to_owned(), beyond })
}

/// The manifest is JSON, which YAML 1.1 and YAML 1.2 read alike.
fn row(name: &str, object: &Value) -> Row {
    let manifest = serde_json::to_string_pretty(object).expect("JSON");
    let (name, object) = (name.to_owned(), Some(object.clone()));
    Row { name, manifest, bytes: None, object, stricter: None, other_fields: None, bound: None }
}

fn manifests(kind: &str) -> Vec<Value> {
    let documents = COMPLETE.split("\n---\n").map(|text| serde_yaml::from_str::<Value>(text).expect("YAML"));
    documents.filter(|document| document["kind"] == kind).collect()
}

/// The manifest with one value replaced or removed.
fn set(manifest: &Value, pointer: &str, value: Option<Value>) -> Value {
    let mut changed = manifest.clone();
    let (parent, name) = pointer.rsplit_once('/').expect("below the root");
    match (changed.pointer_mut(parent).expect("a pointer of this manifest"), value) {
        (Value::Object(fields), Some(value)) => drop(fields.insert(unescape(name), value)),
        (Value::Object(fields), None) => drop(fields.remove(&unescape(name))),
        (Value::Array(items), Some(value)) => items[name.parse::<usize>().expect("an index")] = value,
        (parent, _) => panic!("{parent} has no parts"),
    }
    changed
}

fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn unescape(name: &str) -> String {
    name.replace("~1", "/").replace("~0", "~")
}

/// Keys to add to maps, and the names of the variants.
const KEYS: [(&str, &str); 6] = [
    ("a key", "a key with a space"),
    ("", "a key of nothing"),
    ("example.com/a/b", "a key with two slashes"),
    ("Example.com/a", "a key with capitals in its domain"),
    ("x01234567890123456789012345678901234567890123456789012345678901", "the longest key"),
    ("x012345678901234567890123456789012345678901234567890123456789012", "a key that is too long"),
];

/// Pointer, name of the variant, and the new value. No value: the field is left out.
type Variant = (String, &'static str, Option<Value>);

fn walk(schema: &Value, value: &Value, pointer: &str, found: &mut Vec<Variant>) {
    let mut add = |what, value| found.push((pointer.to_owned(), what, Some(value)));
    add("null", Value::Null);
    match schema["type"].as_str() {
        Some("integer") => integers(schema, &mut add),
        Some("string") => strings(schema, &mut add),
        Some("boolean") => {
            add("a string", json!("true"));
            add("a number", json!(1));
        }
        Some("array") => lists(schema, value, &mut add),
        None if schema["x-kubernetes-int-or-string"] == true => {
            integers(schema, &mut add);
            strings(schema, &mut add);
            add("a list", json!([]));
        }
        _ => {
            add("a list", json!([]));
            add("empty", json!({}));
        }
    }
    if pointer.rsplit('/').next().is_none_or(|name| name.parse::<usize>().is_err()) {
        found.push((pointer.to_owned(), "left out", None));
    }
    match value {
        Value::Object(fields) => objects(schema, fields, pointer, found),
        // Variants of the first item are enough.
        Value::Array(items) => {
            items.iter().take(1).for_each(|item| walk(&schema["items"], item, &format!("{pointer}/0"), found));
        }
        _ => {}
    }
}

fn integers(schema: &Value, add: &mut impl FnMut(&'static str, Value)) {
    if let Some(least) = schema["minimum"].as_i64() {
        add("the least", json!(least));
        add("less than the least", json!(least - 1));
    }
    if let Some(most) = schema["maximum"].as_i64() {
        add("the most", json!(most));
        add("more than the most", json!(most + 1));
    }
    add("a string", json!("1"));
    add("half", json!(1.5));
    add("a whole float", json!(2000.0));
    add("true", json!(true));
    add("beyond 64 bits", json!(1e30));
}

fn strings(schema: &Value, add: &mut impl FnMut(&'static str, Value)) {
    add("a number", json!(5));
    add(if schema["minLength"].as_u64() > Some(0) { "shorter than the shortest" } else { "empty" }, json!(""));
    if schema["enum"].is_array() {
        add("not one of them", json!("Bogus"));
        let first = schema["enum"][0].as_str().unwrap_or_default();
        add("in lower case", json!(first.to_lowercase()));
        return;
    }
    add("with capitals", json!("Name"));
    add("with a dash at the end", json!("name-"));
    add("with a space", json!("a name"));
    add("with a letter of two bytes", json!("größe"));
    if let Some(most) = schema["maxLength"].as_u64().and_then(|most| usize::try_from(most).ok()) {
        add("the longest", json!("a".repeat(most)));
        add("longer than the longest", json!("a".repeat(most + 1)));
        add("the longest, of letters of two bytes", json!("ö".repeat(most)));
    }
}

fn lists(schema: &Value, value: &Value, add: &mut impl FnMut(&'static str, Value)) {
    add("a string", json!("text"));
    add(if schema["minItems"].as_u64() > Some(0) { "fewer items than the least" } else { "empty" }, json!([]));
    let Some(first) = value.get(0) else { return };
    add("the first item twice", json!([first, first]));
    add("with a null", json!([first, null]));
    if let Some(most) = schema["maxItems"].as_u64() {
        let named = |number: u64| {
            let mut item = first.clone();
            // Names and ports of items must be unique.
            if let Some(fields) = item.as_object_mut() {
                if fields.contains_key("name") {
                    fields.insert("name".to_owned(), json!(format!("n{number}")));
                }
                if fields.contains_key("port") {
                    fields.insert("port".to_owned(), json!(20000 + number));
                    fields.remove("endPort");
                }
            }
            item
        };
        add("the most items", (0..most).map(named).collect());
        add("more items than the most", (0..=most).map(named).collect());
    }
}

fn objects(schema: &Value, fields: &Map<String, Value>, pointer: &str, found: &mut Vec<Variant>) {
    if schema["properties"].is_object() {
        found.push((format!("{pointer}/bogus"), "an unknown field", Some(json!(1))));
    }
    if let Some(value) = fields.values().next().filter(|_| schema["additionalProperties"].is_object()) {
        for (key, variant) in KEYS {
            found.push((format!("{pointer}/{}", escape(key)), variant, Some(value.clone())));
        }
    }
    for (name, value) in fields {
        let below = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
        walk(below, value, &format!("{pointer}/{}", escape(name)), found);
    }
}
