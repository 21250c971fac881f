//! Validation of metadata, the same for every kind.

use serde_json::{Map, Value};

use super::{
    schema::{Violation, unknown},
    shown::cut,
};
use crate::spelling;

/// Type that a metadata field must have to decode.
#[derive(Clone, Copy)]
enum Type {
    Text,
    Integer,
    Time,
    Texts,
    Owners,
    Map,
    List,
}

/// Fields that a manifest may contain; an API server ignores or overwrites most of them.
const KNOWN: [(&str, Type); 15] = [
    ("annotations", Type::Map),
    ("creationTimestamp", Type::Time),
    ("deletionGracePeriodSeconds", Type::Integer),
    ("deletionTimestamp", Type::Time),
    ("finalizers", Type::Texts),
    ("generateName", Type::Text),
    ("generation", Type::Integer),
    ("labels", Type::Map),
    ("managedFields", Type::List),
    ("name", Type::Text),
    ("namespace", Type::Text),
    ("ownerReferences", Type::Owners),
    ("resourceVersion", Type::Text),
    ("selfLink", Type::Text),
    ("uid", Type::Text),
];

/// Most bytes of all annotations together, keys and values.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// Fields of an owner reference. Strings (true) are required, booleans (false) are optional.
const OWNER: [(&str, bool); 6] = [
    ("apiVersion", true),
    ("kind", true),
    ("name", true),
    ("uid", true),
    ("blockOwnerDeletion", false),
    ("controller", false),
];

/// Normalises values that an API server treats as absent: removes nulls, and replaces null labels and annotations by
/// the empty string.
pub(super) fn drop_nulls(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    metadata.retain(|name, value| !(value.is_null() && KNOWN.iter().any(|(known, _)| known == name)));
    for map in ["labels", "annotations"] {
        let values = metadata.get_mut(map).and_then(Value::as_object_mut).into_iter().flatten();
        for (_, value) in values.filter(|(_, value)| value.is_null()) {
            *value = Value::from("");
        }
    }
}

/// Returns all violations.
pub(super) fn check(object: &Value) -> Vec<Violation> {
    let metadata = match &object["metadata"] {
        Value::Object(metadata) => metadata,
        Value::Null => return vec![Violation::blocking("metadata.name", "is required")],
        _ => return vec![Violation::blocking("metadata", "must be an object")],
    };
    let mut found = Vec::new();
    for (name, value) in metadata {
        if let Some((_, wanted)) = KNOWN.iter().find(|(known, _)| known == name) {
            typed(&format!("metadata.{name}"), *wanted, value, &mut found);
        } else {
            let message = unknown(name, KNOWN.iter().map(|(known, _)| *known));
            found.push(Violation::blocking(format!("metadata.{name}"), message));
        }
    }
    names(metadata, &mut found);
    for map in ["labels", "annotations"] {
        for (key, value) in metadata.get(map).and_then(Value::as_object).into_iter().flatten() {
            entry(map, key, value, &mut found);
        }
    }
    let size = |(key, value): (&String, &Value)| key.len() + value.as_str().map_or(0, str::len);
    let annotations = metadata.get("annotations").and_then(Value::as_object);
    if annotations.into_iter().flatten().map(size).sum::<usize>() > MAX_ANNOTATIONS {
        found.push(Violation::blocking(
            "metadata.annotations",
            format!("must have at most {MAX_ANNOTATIONS} bytes in total"),
        ));
    }
    found
}

fn names(metadata: &Map<String, Value>, found: &mut Vec<Violation>) {
    match metadata.get("name") {
        Some(Value::String(name)) if !is_subdomain(name) => found.push(Violation::new(
            "metadata.name",
            "must be a DNS-1123 subdomain: lower case letters, digits, '-' and '.', at most 253 characters",
        )),
        Some(_) => {}
        None if metadata.contains_key("generateName") => {
            let message = "needs a cluster to generate the name; set metadata.name instead";
            found.push(Violation::blocking("metadata.generateName", message));
        }
        // A misspelt name is one mistake, which is reported once, at the misspelt field.
        None if metadata.keys().any(|name| is_misspelt_name(name)) => {}
        None => found.push(Violation::blocking("metadata.name", "is required")),
    }
    if metadata.get("namespace").and_then(Value::as_str).is_some_and(|name| !is_label(name)) {
        let message = "must be a DNS-1123 label: lower case letters, digits and '-'";
        found.push(Violation::new("metadata.namespace", message));
    }
}

/// Validates one label or annotation.
fn entry(map: &str, key: &str, value: &Value, found: &mut Vec<Violation>) {
    let field = format!("metadata.{map}.{key}");
    // Unlike labels, annotations may have capital letters in the prefix of their keys.
    let name = if map == "annotations" { key.to_lowercase() } else { key.to_owned() };
    if !is_qualified_name(&name) {
        let message = "must be a name of letters, digits, '-', '_' and '.', with an optional prefix/";
        found.push(Violation::new(&field, message));
    }
    match value.as_str() {
        None if value.is_number() => {
            let message = format!("must be a string, but is the number {value}; write '{value}'");
            found.push(Violation::blocking(field, message));
        }
        None => found.push(Violation::blocking(field, "must be a string; use quotes")),
        Some(text) if map == "labels" && !is_label_value(text) => {
            let must =
                "must have at most 63 letters, digits, '-', '_' and '.', and begin and end with a letter or a digit";
            found.push(Violation::new(field, format!("{must}; here it is '{}'", cut(text))));
        }
        Some(_) => {}
    }
}

fn typed(field: &str, wanted: Type, value: &Value, found: &mut Vec<Violation>) {
    let mut must = |right: bool, what: &str| {
        if !right {
            found.push(Violation::blocking(field, format!("must be {what}")));
        }
    };
    match wanted {
        Type::Text | Type::Time => must(value.is_string(), "a string; use quotes"),
        Type::Integer => must(value.is_i64(), "an integer"),
        Type::Map => must(value.is_object(), "a map of strings"),
        Type::List => must(value.is_array(), "a list"),
        Type::Texts => match value.as_array() {
            None => must(false, "a list"),
            Some(texts) if !texts.iter().all(Value::is_string) => must(false, "a list of strings"),
            Some(texts) => {
                for text in texts.iter().filter_map(Value::as_str).filter(|text| !is_qualified_name(text)) {
                    let message = format!("'{text}' must be a name such as example.com/cleanup");
                    found.push(Violation::new(field, message));
                }
            }
        },
        Type::Owners => match value.as_array() {
            None => must(false, "a list"),
            Some(list) => owners(field, list, found),
        },
    }
}

fn owners(field: &str, owners: &[Value], found: &mut Vec<Violation>) {
    for (at, value) in owners.iter().enumerate() {
        let field = format!("{field}[{at}]");
        match value {
            Value::Object(fields) => owner(&field, fields, found),
            Value::Null => owner(&field, &Map::new(), found),
            _ => found.push(Violation::blocking(field, "must be an object")),
        }
    }
    if owners.iter().filter(|owner| owner["controller"] == true).count() > 1 {
        found.push(Violation::new(field, "must have at most one owner with controller: true"));
    }
}

fn owner(field: &str, owner: &Map<String, Value>, found: &mut Vec<Violation>) {
    let unknown_names = || owner.keys().filter(|name| !OWNER.iter().any(|(known, _)| known == name));
    for name in unknown_names() {
        let message = unknown(name, OWNER.iter().map(|(known, _)| *known));
        found.push(Violation::blocking(format!("{field}.{name}"), message));
    }
    // A misspelt field is one mistake, which is reported once, at the misspelt field.
    let meant: Vec<&str> =
        unknown_names().filter_map(|name| spelling::closest(name, OWNER.iter().map(|(known, _)| *known))).collect();
    for (name, is_text) in OWNER.into_iter().filter(|(name, _)| owner.contains_key(*name) || !meant.contains(name)) {
        match owner.get(name) {
            Some(Value::String(text)) if is_text && !text.is_empty() => {}
            Some(Value::Bool(_) | Value::Null) | None if !is_text => {}
            _ if is_text => {
                found.push(Violation::blocking(format!("{field}.{name}"), "is required and must be a string"));
            }
            _ => found.push(Violation::blocking(format!("{field}.{name}"), "must be a boolean (true or false)")),
        }
    }
    let text = |name: &str| owner.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("apiVersion").matches('/').count() > 1 {
        found.push(Violation::new(format!("{field}.apiVersion"), "must be GROUP/VERSION or VERSION"));
    }
    if (text("apiVersion"), text("kind")) == ("v1", "Event") {
        found.push(Violation::new(
            field,
            "must not refer to an Event, because Events are deleted before the objects they would own",
        ));
    }
}

/// Whether an unknown field is probably meant to be the name.
fn is_misspelt_name(field: &str) -> bool {
    let known = || KNOWN.iter().map(|(known, _)| *known);
    known().all(|known| known != field) && spelling::closest(field, known()) == Some("name")
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.len() <= 63 && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// A part of a label: starts and ends with a letter or digit.
fn is_name_part(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    bytes.len() <= 63 && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
}

fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_name_part(text)
}

pub(super) fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_name_part(name),
        None => is_name_part(text),
    }
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}
