//! Names the settings that differ between two versions of a listener.

use std::collections::{BTreeMap, BTreeSet};

use proxy_api::Listener;
use serde_json::Value;

/// The most settings that are named; the others are counted.
const MOST_NAMED: usize = 4;
/// The most characters of a value that are shown.
const MOST_CHARACTERS: usize = 40;
/// Fields that are not settings: the hash of the others, and where the listener listens and for which names.
const NO_SETTINGS: [&str; 4] = ["revision", "socket", "endPort", "hostnames"];

/// The settings that differ, in the form `timeouts.idleSeconds 60 -> 5`, up to a bound. A backend is compared only if
/// both versions have it.
#[must_use]
pub fn edits(before: &Listener, after: &Listener) -> Vec<String> {
    let (before, after) = (settings(before, after), settings(after, before));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differs = |name: &&String| before.get(*name) != after.get(*name);
    let mut found: Vec<String> = names
        .into_iter()
        .filter(differs)
        .map(|name| format!("{name} {} -> {}", shown(before.get(name)), shown(after.get(name))))
        .collect();
    if found.len() > MOST_NAMED {
        let more = found.len() - MOST_NAMED;
        found.truncate(MOST_NAMED);
        found.push(format!("{more} more"));
    }
    found
}

/// The settings of a listener by their path in the document, without the backends that `other` lacks.
fn settings(listener: &Listener, other: &Listener) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let Ok(Value::Object(fields)) = serde_json::to_value(listener) else { return found };
    for (name, value) in &fields {
        match name.as_str() {
            name if NO_SETTINGS.contains(&name) => {}
            "backends" => {
                let shared =
                    listener.backends.iter().filter(|backend| other.backends.iter().any(|it| it.id == backend.id));
                for backend in shared {
                    if let Ok(value) = serde_json::to_value(backend) {
                        flatten(format!("backends[{}]", backend.id), &value, &mut found);
                    }
                }
            }
            // The name of the field in a manifest.
            "policy" => flatten("loadBalancing.policy".to_owned(), value, &mut found),
            name => flatten(name.to_owned(), value, &mut found),
        }
    }
    found
}

fn flatten(path: String, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                flatten(format!("{path}.{name}"), value, into);
            }
        }
        Value::Null => {}
        Value::String(text) => drop(into.insert(path, text.clone())),
        value => drop(into.insert(path, value.to_string())),
    }
}

fn shown(value: Option<&String>) -> String {
    let Some(value) = value else { return "none".to_owned() };
    if value.chars().count() <= MOST_CHARACTERS {
        return value.clone();
    }
    let beginning: String = value.chars().take(MOST_CHARACTERS - 1).collect();
    format!("{beginning}…")
}
