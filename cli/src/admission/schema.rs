//! Validation against the structural schema of a CRD: types, enums, patterns, bounds, required and unknown fields,
//! list-map keys.

mod remedies;
mod words;

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
};

use proxy::log::printable;
use regex::Regex;
use serde_json::{Map, Value};

use crate::spelling;

/// A violation of the schema.
#[derive(Debug)]
pub(super) struct Violation {
    pub(super) field: String,
    pub(super) message: String,
    /// Whether this violation keeps an API server from evaluating the CEL rules. Values out of bounds do not; values
    /// that have a wrong type, are missing, are too long or are too many do (`hasBlockingErr` in its source).
    pub(super) blocks_rules: bool,
}

impl Violation {
    pub(super) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), blocks_rules: false }
    }

    pub(super) fn blocking(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { blocks_rules: true, ..Self::new(field, message) }
    }
}

/// Fields of every object that the schema check skips: `metadata::check` validates metadata, and an API server does not
/// take status from a manifest.
const ROOT_FIELDS: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];

/// Returns all violations of the schema.
pub(super) fn check(schema: &Value, object: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    if let Value::Object(fields) = object {
        let rest: Map<String, Value> = fields
            .iter()
            .filter(|(name, _)| !ROOT_FIELDS.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        node(schema, &Value::Object(rest), "", &mut found);
    }
    words::say_where(schema, &mut found);
    found
}

/// Returns all violations of a value inside an object.
pub(super) fn below(schema: &Value, value: &Value, path: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    node(schema, value, path, &mut found);
    found
}

/// Returns unknown fields in `status`. Values in status are not validated, because an API server ignores them in a
/// manifest, but it does decode the field names strictly.
pub(super) fn unknown_in_status(schema: &Value, object: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    unknown_below(&schema["properties"]["status"], &object["status"], "status", &mut found);
    found
}

fn unknown_below(schema: &Value, value: &Value, path: &str, found: &mut Vec<Violation>) {
    let known = schema["properties"].as_object();
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match known.and_then(|known| known.get(name)) {
                    Some(schema) => unknown_below(schema, value, &join(path, name), found),
                    None if known.is_some() => {
                        found.push(Violation::blocking(join(path, name), unknown(name, names(known))));
                    }
                    None => {}
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                unknown_below(&schema["items"], item, &format!("{path}[{at}]"), found);
            }
        }
        _ => {}
    }
}

/// Drops null fields, as an API server does for fields that are not nullable. Nulls in lists stay and are refused.
pub(super) fn drop_nulls(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let below = |name: &str| schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
            fields.retain(|name, value| !(value.is_null() && below(name).is_some()));
            for (name, value) in fields {
                if let Some(schema) = below(name) {
                    drop_nulls(schema, value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| drop_nulls(&schema["items"], item)),
        _ => {}
    }
}

fn node(schema: &Value, value: &Value, path: &str, found: &mut Vec<Violation>) {
    let mut wrong = |wrong: Violation| found.push(wrong);
    match (schema["type"].as_str(), value) {
        (_, Value::Null) => wrong(Violation::blocking(path, "is null; omit the value instead")),
        (Some("object"), Value::Object(fields)) => object(schema, fields, path, found),
        (Some("array"), Value::Array(items)) => array(schema, items, path, found),
        (Some("string"), Value::String(text)) => string(schema, text, path, &mut wrong),
        (Some("integer"), Value::Number(number)) if number.is_i64() || number.is_u64() => {
            integer(
                schema,
                number.as_i64().map_or_else(|| number.as_u64().map_or(0, i128::from), i128::from),
                path,
                &mut wrong,
            );
        }
        (None, value) if schema["x-kubernetes-int-or-string"] == true => {
            integer_or_string(schema, value, path, &mut wrong);
        }
        (Some("boolean"), Value::Bool(_)) | (None, _) => {}
        (Some("string"), Value::Array(_)) => {
            let remedy = if path.rsplit('.').next() == Some("host") {
                "write an IPv6 address without them, in quotes: \"::1\""
            } else {
                "put the text in quotes"
            };
            let message = format!("must be a string, but is a list, because '[' and ']' make one; {remedy}");
            wrong(Violation::blocking(path, message));
        }
        (Some(wanted), value) => wrong(wrong_type(schema, wanted, value, path, None)),
    }
}

/// Describes a value that has another type than `wanted`. `port` is the sibling field that belongs into the value.
fn wrong_type(schema: &Value, wanted: &str, value: &Value, path: &str, port: Option<&Value>) -> Violation {
    let remedy = remedies::instead(schema, words::last_name(path), value, port)
        .or_else(|| remedies::range(path, value.as_str().filter(|_| wanted == "integer")?));
    let remedy = remedy.map_or_else(String::new, |remedy| format!("; {remedy}"));
    let wanted = remedies::variants(schema).map_or_else(|| article(wanted).to_owned(), |names| one_of(&names));
    let words = in_words(value, schema["type"] == "string" && schema["enum"].is_null());
    Violation::blocking(path, format!("must be {wanted}, but is {words}{remedy}"))
}

fn one_of(names: &[&str]) -> String {
    format!("one of {}", names.join(", "))
}

fn article(kind: &str) -> &str {
    match kind {
        "object" => "an object",
        "array" => "a list",
        "string" => "a string",
        "integer" => "an integer",
        "boolean" => "a boolean (true or false)",
        other => other,
    }
}

/// Describes a value, with a hint if YAML 1.1 may have surprised the author. `quotable` says whether the value is right
/// in quotes.
fn in_words(value: &Value, quotable: bool) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => {
            let remedy = if quotable { "; use quotes" } else { "" };
            format!("the boolean {flag} (YAML reads on, off, yes, no, y and n as booleans{remedy})")
        }
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the string {}", quoted(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// The start of a value in quotes, with invisible characters escaped.
fn quoted(text: &str) -> String {
    let start: String = text.chars().take(60).collect();
    format!("'{}'", printable(&start))
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn object(schema: &Value, fields: &Map<String, Value>, path: &str, found: &mut Vec<Violation>) {
    let known = schema["properties"].as_object();
    let is_known = |name: &str| known.is_some_and(|known| known.contains_key(name));
    let unknown_fields = || fields.keys().map(String::as_str).filter(|name| !is_known(name));
    let misspelt: Vec<&str> = unknown_fields().filter(|name| close(name, known).is_some()).collect();
    let meant: Vec<&str> = misspelt.iter().filter_map(|name| close(name, known)).collect();
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        // A misspelt field is one mistake, which is reported once, at the misspelt field.
        if !fields.contains_key(required) && !meant.contains(&required) {
            found.push(Violation::blocking(join(path, required), "is required"));
        }
    }
    if let Some(most) = schema["maxProperties"].as_u64().filter(|most| fields.len() as u64 > *most) {
        found.push(Violation::blocking(path, format!("must have at most {most} entries, but has {}", fields.len())));
    }
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        // The API of an embedded object validates it.
        return;
    }
    let mut strange: Vec<&str> = Vec::new();
    let split = remedies::split(fields, known);
    for (name, value) in fields {
        let below = join(path, name);
        match (known.and_then(|known| known.get(name)), &schema["additionalProperties"]) {
            // `{service: pg, port: 5432}` counts as one mistake.
            (Some(schema), _) if split == Some(name.as_str()) => {
                found.push(wrong_type(schema, "object", value, &below, fields.get("port")));
            }
            (None, _) if split.is_some() && name == "port" => {}
            (Some(schema), _) => node(schema, value, &below, found),
            (None, schema) if schema.is_object() => node(schema, value, &below, found),
            (None, _) if misspelt.contains(&name.as_str()) => {
                found.push(Violation::blocking(below, unknown(name, names(known))));
            }
            (None, _) => strange.push(name),
        }
    }
    match (left_out(&strange, known), strange.first()) {
        // The fields of an object that was left out count as one mistake.
        (Some(parent), Some(first)) if strange.len() > 1 && !fields.contains_key(parent) => {
            let fields = strange.join(" and ");
            let message = format!("{fields} belong in {parent}: write {parent}: {{{}: ...}}", strange.join(": ..., "));
            found.push(Violation::blocking(join(path, first), message));
        }
        _ => {
            found.extend(strange.iter().map(|name| Violation::blocking(join(path, name), unknown(name, names(known)))));
        }
    }
}

/// The message for an unknown field, beside the known ones.
pub(super) fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match spelling::closest(name, known.clone()) {
        Some(close) => format!("unknown field; did you mean '{close}'?"),
        None => format!("{}{}", words::STRANGE, known.collect::<Vec<_>>().join(", ")),
    }
}

/// The known field that the author most likely meant.
fn close<'a>(name: &str, known: Option<&'a Map<String, Value>>) -> Option<&'a str> {
    spelling::closest(name, names(known))
}

fn names(known: Option<&Map<String, Value>>) -> impl Iterator<Item = &str> + Clone {
    known.into_iter().flat_map(Map::keys).map(String::as_str)
}

/// The only field of the object whose own fields include all of these: the level that the author left out between the
/// object and them. Of several such fields, the one that requires no more fields than these: an address has a host and
/// a port, and a tunnel also has an agent.
fn left_out<'a>(unknown: &[&str], known: Option<&'a Map<String, Value>>) -> Option<&'a str> {
    let has_all = |(_, schema): &(&String, &Value)| {
        let below = schema["properties"].as_object();
        unknown.iter().all(|name| below.is_some_and(|below| below.contains_key(*name)))
    };
    let is_whole = |(_, schema): &(&String, &Value)| {
        schema["required"].as_array().into_iter().flatten().all(|field| unknown.iter().any(|name| field == name))
    };
    let parents: Vec<(&String, &Value)> = known.into_iter().flatten().filter(has_all).collect();
    let whole: Vec<(&String, &Value)> = parents.iter().copied().filter(is_whole).collect();
    let only = if parents.len() == 1 { &parents } else { &whole };
    match only.as_slice() {
        [(name, _)] => Some(name.as_str()),
        _ => None,
    }
}

fn array(schema: &Value, items: &[Value], path: &str, found: &mut Vec<Violation>) {
    let count = items.len() as u64;
    if let Some(least) = schema["minItems"].as_u64().filter(|least| count < *least) {
        let least = proxy_api::count(least, "item");
        found.push(Violation::new(path, format!("must have at least {least}, but has {count}")));
    }
    if let Some(most) = schema["maxItems"].as_u64().filter(|most| count > *most) {
        found.push(Violation::blocking(path, format!("must have at most {most} items, but has {count}")));
    }
    for (at, item) in items.iter().enumerate() {
        node(&schema["items"], item, &format!("{path}[{at}]"), found);
    }
    if schema["x-kubernetes-list-type"] == "map" {
        let keys: Vec<&str> =
            schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut seen = BTreeSet::new();
        for (at, item) in items.iter().enumerate() {
            let identity: Vec<String> = keys.iter().map(|key| item[*key].to_string()).collect();
            if !seen.insert(identity) {
                let shown = |key: &&str| item[*key].as_str().map_or_else(|| item[*key].to_string(), quoted);
                let values: Vec<String> = keys.iter().map(shown).collect();
                let (keys, values) = (keys.join(" and "), values.join(" and "));
                let message = format!("has the same {keys} as an earlier item, {values}");
                found.push(Violation::new(format!("{path}[{at}]"), message));
            }
        }
    }
}

fn string(schema: &Value, text: &str, path: &str, wrong: &mut impl FnMut(Violation)) {
    if let Some(names) = remedies::variants(schema) {
        if !names.contains(&text) {
            let meant = spelling::closest(text, names.iter().copied());
            let meant = match (remedies::variant(&names, text), meant) {
                (Some(variant), _) => format!("; write {variant}"),
                (None, Some(meant)) => format!("; did you mean '{meant}'?"),
                (None, None) => String::new(),
            };
            let shown = quoted(text);
            wrong(Violation::blocking(path, format!("must be {}, but is {shown}{meant}", one_of(&names))));
        }
        return;
    }
    let length = text.chars().count() as u64;
    if let Some(least) = schema["minLength"].as_u64().filter(|least| length < *least) {
        let least = proxy_api::count(least, "character");
        wrong(Violation::new(path, format!("must have at least {least}, but has {length}")));
        // An empty text does not match a pattern either, but is one mistake.
        return;
    }
    if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
        wrong(Violation::blocking(path, format!("must have at most {most} characters, but has {length}")));
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        // The patterns come from Portlane's CRDs; a pattern that does not compile fails the test that admits the
        // examples.
        if !matches(pattern, text) {
            let must = words::allowed(pattern).map_or_else(|| format!("match {pattern}"), ToOwned::to_owned);
            let remedy = remedies::text(&must, text).map_or_else(String::new, |remedy| format!(": {remedy}"));
            wrong(Violation::new(path, format!("must {must}; here it is {}{remedy}", quoted(text))));
        }
    }
}

/// Matches with a cache of compiled patterns; a schema has only a few.
fn matches(pattern: &str, text: &str) -> bool {
    thread_local! {
        static COMPILED: RefCell<HashMap<String, Option<Regex>>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| {
        let known = compiled.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).ok());
        known.as_ref().is_none_or(|pattern| pattern.is_match(text))
    })
}

/// Checks an amount, which needs no quotes if it is a whole number.
fn integer_or_string(schema: &Value, value: &Value, path: &str, wrong: &mut impl FnMut(Violation)) {
    match (value, value.as_i64()) {
        (Value::String(text), _) => string(schema, text, path, wrong),
        (_, Some(number)) => integer(schema, i128::from(number), path, wrong),
        _ => {
            let text = value.to_string();
            let is_right_in_quotes = schema["pattern"].as_str().is_some_and(|pattern| matches(pattern, &text));
            let remedy = if is_right_in_quotes { format!("; write '{text}'") } else { String::new() };
            let words = in_words(value, false);
            wrong(Violation::blocking(path, format!("must be an integer or a string, but is {words}{remedy}")));
        }
    }
}

fn integer(schema: &Value, value: i128, path: &str, wrong: &mut impl FnMut(Violation)) {
    if let Some(least) = schema["minimum"].as_i64().filter(|least| value < i128::from(*least)) {
        wrong(Violation::new(path, format!("must be at least {least}, but is {value}")));
    }
    if let Some(most) = schema["maximum"].as_i64().filter(|most| value > i128::from(*most)) {
        wrong(Violation::new(path, format!("must be at most {most}, but is {value}")));
    }
}

#[cfg(test)]
mod tests;
