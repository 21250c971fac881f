//! Explains violations of the schema: the values that a pattern allows, and the object to which a field belongs.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Violation, join};
use crate::spelling;

/// The start of the message about an unknown field that resembles no known one.
pub(super) const STRANGE: &str = "unknown field; known fields are ";

/// Describes the values that match a pattern of the CRDs.
pub(super) fn allowed(pattern: &str) -> Option<&'static str> {
    Some(match pattern {
        "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" => {
            "have only lower case letters, digits and '-', and begin and end with a letter or a digit"
        }
        "^[a-z]([-a-z0-9]*[a-z0-9])?$" => {
            "have only lower case letters, digits and '-', begin with a letter, and end with a letter or a digit"
        }
        "^([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$" => {
            "be a name in lower case, such as db.example.com or *.example.com"
        }
        "^[0-9]+([.][0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$" => "be an amount, such as 500m, 2 or 64Mi",
        "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$" => {
            "have only letters, digits, '-', '_' and '.', and begin and end with a letter or a digit"
        }
        "^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$" => {
            "be a name such as app or example.com/app"
        }
        "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$" => {
            "have only lower case letters, digits, '-' and '.', and begin and end with a letter or a digit"
        }
        "^/[!-~]*$" => "begin with '/', and have only ASCII characters and no spaces",
        r"^([ -\[\]-~]|\\[rnt0\\]|\\x[0-9a-fA-F]{2}){1,256}$" => {
            r"be 1 to 256 bytes: printable ASCII with the escapes \r, \n, \t, \0, \\ and \xHH"
        }
        "^sha256:[0-9a-f]{64}$" => "be sha256: and 64 hexadecimal digits in lower case",
        "^[A-Za-z0-9_][A-Za-z0-9._-]*$" => "have only letters, digits, '_', '.' and '-', and not begin with '.' or '-'",
        r"^[!#-<>?A-\\^-~]+@[0-9]+([.][0-9]+)*$" => {
            "be printable ASCII without spaces, '=', ']' and quotation marks, then '@' and an enterprise number, such as \
             portlane@32473"
        }
        "^(([1-9][0-9]{0,3}|1[0-5][0-9]{3}|16[0-2][0-9]{2}|163[0-7][0-9]|1638[0-4])Gi|([1-9]|1[0-6])Ti)$" => {
            "be a whole number of Gi or Ti, from 1Gi to 16384Gi (16Ti)"
        }
        "^(nats|tls)://[^/@?# ]+$" => "be nats://HOST:PORT or tls://HOST:PORT, without a user or a password",
        "^[!-~]+$" => "have only printable ASCII characters and no spaces",
        _ => return None,
    })
}

/// Adds to unknown fields where they belong, if one or two objects of the schema have a field of that name.
pub(super) fn say_where(schema: &Value, found: &mut [Violation]) {
    if !found.iter().any(is_elsewhere) {
        return;
    }
    let mut places = BTreeMap::new();
    collect(schema, "", &mut places);
    for wrong in found.iter_mut().filter(|wrong| is_elsewhere(wrong)) {
        let name = last_name(&wrong.field);
        if let Some(place) = place(&places, name) {
            wrong.message = format!("unknown field; it belongs in {place}");
        }
    }
}

/// Describes where a field belongs, and its name there if the author spelled it differently. A `spec` or a `status`
/// below another field is not that of the document.
fn place(places: &BTreeMap<&str, Vec<String>>, name: &str) -> Option<String> {
    let mut alike = places.iter().filter(|(known, _)| spelling::is_same(name, known));
    let (known, found) = places.get_key_value(name).or_else(|| alike.next())?;
    match found.as_slice() {
        [place] if place.is_empty() && matches!(*known, "spec" | "status") => None,
        [place] if place.is_empty() => Some("the document itself, beside kind".to_owned()),
        [place] if *known == name => Some(place.clone()),
        [place] => Some(format!("{place}, as {known}")),
        [one, other] if *known == name && !one.is_empty() && !other.is_empty() => Some(format!("{one} or {other}")),
        _ => None,
    }
}

pub(super) fn last_name(field: &str) -> &str {
    field.rsplit('.').next().unwrap_or_default()
}

/// Whether a field is unknown and not a misspelling of a known one. A field that only begins like a known one, such as
/// `healthCheckPort` beside `healthCheck`, may belong elsewhere.
fn is_elsewhere(wrong: &Violation) -> bool {
    let meant = wrong.message.strip_prefix("unknown field; did you mean '").and_then(|rest| rest.strip_suffix("'?"));
    match meant {
        Some(meant) => !spelling::is_near(last_name(&wrong.field), meant),
        None => wrong.message.starts_with(STRANGE),
    }
}

/// Collects the objects that have a field, by its name.
fn collect<'a>(schema: &'a Value, path: &str, places: &mut BTreeMap<&'a str, Vec<String>>) {
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        places.entry(name).or_default().push(path.to_owned());
        if !(path.is_empty() && name == "status") {
            collect(below, &join(path, name), places);
        }
    }
    if schema["items"].is_object() {
        collect(&schema["items"], &format!("{path}[]"), places);
    }
}
