//! What every object's metadata must be, whatever its kind.

use serde_json::Value;

/// Fields that an object may be written with; the API server ignores or sets the rest of them itself.
const KNOWN: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Field and message of everything that is wrong.
pub(super) fn check(object: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut wrong = |field: &str, message: &str| found.push((field.to_owned(), message.to_owned()));
    let Some(metadata) = object["metadata"].as_object() else {
        wrong("metadata", "is required, with a name");
        return found;
    };
    match metadata.get("name") {
        Some(Value::String(name)) if is_subdomain(name) => {}
        Some(Value::String(_)) => wrong(
            "metadata.name",
            "must be a DNS-1123 subdomain: lower case letters, digits, '-' and '.', at most 253 characters",
        ),
        Some(_) => wrong("metadata.name", "must be a string"),
        None if metadata.contains_key("generateName") => {
            wrong("metadata.generateName", "needs a cluster to make the name; write metadata.name instead");
        }
        None => wrong("metadata.name", "is required"),
    }
    match metadata.get("namespace") {
        None => {}
        Some(Value::String(namespace)) if is_label(namespace) => {}
        Some(_) => wrong("metadata.namespace", "must be a DNS-1123 label: lower case letters, digits and '-'"),
    }
    for map in ["labels", "annotations"] {
        match metadata.get(map) {
            None | Some(Value::Null) => {}
            Some(Value::Object(entries)) => {
                for (key, value) in entries {
                    let field = format!("metadata.{map}.{key}");
                    match value.as_str() {
                        _ if !is_qualified_name(key) => {
                            wrong(
                                &field,
                                "must be a name of letters, digits, '-', '_' and '.', with an optional prefix/",
                            );
                        }
                        None => wrong(&field, "must be a string; use quotes"),
                        Some(text) if map == "labels" && !is_label_value(text) => {
                            wrong(&field, "must have at most 63 letters, digits, '-', '_' and '.'");
                        }
                        Some(_) => {}
                    }
                }
            }
            Some(_) => wrong(&format!("metadata.{map}"), "must be a map of strings"),
        }
    }
    for name in metadata.keys().filter(|name| !KNOWN.contains(&name.as_str())) {
        wrong(&format!("metadata.{name}"), "unknown field");
    }
    found
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.len() <= 63 && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// A part of a label: begins and ends with a letter or digit.
fn is_name_part(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    bytes.len() <= 63 && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
}

fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_name_part(text)
}

fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_name_part(name),
        None => is_name_part(text),
    }
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}
