//! Reference of a kind for people: a table of fields for each object of the schema in its CRD.

use std::{error::Error, fmt};

use serde_json::Value;

use crate::VERSION;

/// Folder of the pages, relative to the folder of this crate.
pub const REFERENCE: &str = "../docs/reference";

/// Why the reference of a kind cannot be generated.
#[derive(Debug)]
pub enum ReferenceError {
    /// The CRD has no schema for [`VERSION`].
    NoSchema,
    /// A field has no description.
    NoDescription(String),
}

impl fmt::Display for ReferenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSchema => write!(f, "the CRD has no schema for {VERSION}"),
            Self::NoDescription(path) => write!(f, "the field {path} has no description: add a doc comment"),
        }
    }
}

impl Error for ReferenceError {}

/// File name of the page for the kind that this CRD defines, relative to [`REFERENCE`].
#[must_use]
pub fn page(crd: &Value) -> String {
    format!("{}.md", text(&crd["spec"]["names"]["kind"]).to_lowercase())
}

/// The reference of the kind that this CRD defines: Markdown, with a section for each object of spec and status.
///
/// # Errors
/// A CRD without a schema, and a field without a description.
pub fn reference(crd: &Value) -> Result<String, ReferenceError> {
    let versions = crd["spec"]["versions"].as_array();
    let version = versions.into_iter().flatten().find(|version| version["name"] == VERSION);
    let schema = version.map(|version| &version["schema"]["openAPIV3Schema"]).ok_or(ReferenceError::NoSchema)?;
    let names = &crd["spec"]["names"];
    let (kind, plural) = (text(&names["kind"]), text(&names["plural"]));
    let short = text(&names["shortNames"][0]);
    let description = escaped(text(&schema["description"]));
    let mut page = format!(
        "# {kind}\n\n{description}\n\n`apiVersion: {}/{VERSION}`, namespaced. `kubectl get {short}` is short for \
         `kubectl get {plural}`.\n\n\
         This page is generated from the CRD: `cargo run -p portlane-crds --bin crdgen`.\n\
         `kubectl explain {plural}.spec` shows the same. The meaning of an optional field says what its\n\
         absence means. A length counts the characters of a string, or the entries of a list or map.\n",
        text(&crd["spec"]["group"])
    );
    list_rules(&own_rules(schema), &mut page);
    for part in ["spec", "status"] {
        let fields = &schema["properties"][part];
        if !fields["properties"].is_object() {
            return Err(ReferenceError::NoSchema);
        }
        section(part, fields, &mut page)?;
    }
    Ok(page)
}

/// Adds the section of an object, and those of the objects below it.
fn section(path: &str, schema: &Value, page: &mut String) -> Result<(), ReferenceError> {
    let level = if path.contains('.') { "###" } else { "##" };
    page.push_str(&format!("\n{level} `{path}`\n\n| field | type | default | meaning |\n|---|---|---|---|\n"));
    let fields = schema["properties"].as_object();
    for (name, field) in fields.into_iter().flatten() {
        let is_required =
            schema["required"].as_array().is_some_and(|required| required.contains(&name.as_str().into()));
        page.push_str(&row(&format!("{path}.{name}"), field, is_required)?);
    }
    list_rules(&own_rules(schema), page);
    for (name, field) in fields.into_iter().flatten() {
        if let Some((path, object)) = nested(&format!("{path}.{name}"), field) {
            section(&path, object, page)?;
        }
    }
    Ok(())
}

/// The row of one field.
fn row(path: &str, field: &Value, is_required: bool) -> Result<String, ReferenceError> {
    let description = field["description"].as_str().ok_or_else(|| ReferenceError::NoDescription(path.to_owned()))?;
    let mut meaning = escaped(description);
    let object = nested(path, field);
    // The rules of an object are listed in its section.
    let below = [field, &field["items"], &field["additionalProperties"]];
    for schema in below.into_iter().filter(|schema| !schema["properties"].is_object()) {
        for rule in own_rules(schema) {
            meaning.push_str(&format!(" Rule: {rule}."));
        }
    }
    let name = match object {
        Some((path_of_object, _)) => format!("[`{path}`](#{})", anchor(&path_of_object)),
        None => format!("`{path}`"),
    };
    let default = match &field["default"] {
        Value::Null if is_required => "required".to_owned(),
        Value::Null => String::new(),
        default => format!("`{default}`"),
    };
    Ok(format!("| {name} | {} | {default} | {meaning} |\n", type_of(field)))
}

/// The object with fields that a field is, or whose list or map it is, with its path.
fn nested<'a>(path: &str, field: &'a Value) -> Option<(String, &'a Value)> {
    if field["properties"].is_object() {
        return Some((path.to_owned(), field));
    }
    [("items", "[]"), ("additionalProperties", "{}")]
        .into_iter()
        .find_map(|(below, mark)| nested(&format!("{path}{mark}"), field.get(below)?))
}

/// The type of a value in words, with its bounds.
fn type_of(schema: &Value) -> String {
    if let Some(choices) = schema["enum"].as_array() {
        let choices: Vec<String> = choices.iter().map(|choice| format!("`{}`", text(choice))).collect();
        return format!("one of {}", choices.join(", "));
    }
    let range = |low: &str, high: &str, what: &str| range(&schema[low], &schema[high], what);
    let string = || {
        let pattern = schema["pattern"].as_str().map(|pattern| format!(", pattern `{}`", pattern.replace('|', "\\|")));
        format!("string{}{}", range("minLength", "maxLength", "length "), pattern.unwrap_or_default())
    };
    match text(&schema["type"]) {
        _ if schema["x-kubernetes-int-or-string"] == true => {
            format!("integer{}, or {}", range("minimum", "maximum", ""), string())
        }
        "array" => format!("list{}; each: {}", range("minItems", "maxItems", "length "), type_of(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            let values = type_of(&schema["additionalProperties"]);
            format!("map{}; each value: {values}", range("minProperties", "maxProperties", "length "))
        }
        "object" if schema["x-kubernetes-preserve-unknown-fields"] == true => "object of any fields".to_owned(),
        "string" => string(),
        other => format!("{other}{}", range("minimum", "maximum", "")),
    }
}

/// Bounds in words, with a comma before them; nothing without bounds.
fn range(low: &Value, high: &Value, what: &str) -> String {
    match (low, high) {
        (Value::Null, Value::Null) => String::new(),
        (Value::Null, high) => format!(", {what}at most {high}"),
        (low, Value::Null) => format!(", {what}at least {low}"),
        (low, high) if low == high => format!(", {what}{high}"),
        (low, high) => format!(", {what}{low} to {high}"),
    }
}

/// The messages of the rules of a schema itself. A rule without a message is shown as it is.
fn own_rules(schema: &Value) -> Vec<String> {
    let rules = schema["x-kubernetes-validations"].as_array();
    let words = |rule: &Value| match rule["message"].as_str() {
        Some(message) => escaped(message),
        None => format!("`{}`", text(&rule["rule"]).replace('|', "\\|")),
    };
    rules.into_iter().flatten().map(words).collect()
}

/// Adds a list of rules, if there are any.
fn list_rules(rules: &[String], page: &mut String) {
    if rules.is_empty() {
        return;
    }
    page.push_str("\nRules:\n\n");
    for rule in rules {
        page.push_str(&format!("- {rule}\n"));
    }
}

/// The anchor of a heading that is this path, as GitHub and mdBook make it.
fn anchor(path: &str) -> String {
    path.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Plain text as Markdown in a cell of a table.
fn escaped(plain: &str) -> String {
    let mut markdown = String::with_capacity(plain.len());
    for letter in plain.chars() {
        match letter {
            '\\' | '*' | '|' | '<' | '`' => markdown.extend(['\\', letter]),
            '\n' => markdown.push(' '),
            _ => markdown.push(letter),
        }
    }
    markdown
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test that cannot continue panics")]
mod tests {
    use serde_json::json;

    use super::*;

    fn crd(spec: &Value) -> Value {
        let schema = json!({
            "description": "A shop.",
            "properties": {
                "spec": spec,
                "status": {"properties": {"open": {"type": "boolean", "description": "Whether it is open."}}},
            },
            "x-kubernetes-validations": [{"rule": "true", "message": "a shop has a name"}],
        });
        json!({"spec": {
            "group": "portlane.dev",
            "names": {"kind": "Shop", "plural": "shops", "shortNames": ["sh"]},
            "versions": [{"name": VERSION, "schema": {"openAPIV3Schema": schema}}],
        }})
    }

    fn page(fields: &Value) -> String {
        reference(&crd(&json!({"properties": fields, "required": ["name"]}))).expect("a page")
    }

    #[test]
    fn a_page_begins_with_the_kind_and_the_rules_of_the_object() {
        let page = page(&json!({"name": {"type": "string", "description": "The name."}}));
        assert!(page.starts_with("# Shop\n\nA shop.\n\n`apiVersion: portlane.dev/v1alpha1`, namespaced."), "{page}");
        assert!(page.contains("\nRules:\n\n- a shop has a name\n\n## `spec`\n\n| field |"), "{page}");
        assert!(
            page.ends_with(
                "\n## `status`\n\n| field | type | default | meaning |\n|---|---|---|---|\n\
                                | `status.open` | boolean |  | Whether it is open. |\n"
            ),
            "{page}"
        );
    }

    #[test]
    fn bounds_defaults_and_rules_of_a_field_are_in_its_row() {
        let page = page(&json!({
            "count": {"type": "integer", "minimum": 0, "maximum": 9, "default": 2, "description": "How many."},
            "kind": {"type": "string", "enum": ["A", "B"], "description": "The kind."},
            "name": {"type": "string", "maxLength": 5, "pattern": "^(a|b)$", "description": "Such as *.a|b."},
            "nets": {
                "type": "array", "maxItems": 4, "description": "Networks.",
                "items": {"type": "string", "x-kubernetes-validations": [{"rule": "x", "message": "must be a network"}]},
            },
            "amount": {"x-kubernetes-int-or-string": true, "minimum": 0, "maxLength": 32, "description": "How much."},
            "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "description": "Raw."},
            "tags": {
                "type": "object", "maxProperties": 3, "description": "Tags.",
                "additionalProperties": {"type": "string", "minLength": 1},
            },
        }));
        for row in [
            "| `spec.count` | integer, 0 to 9 | `2` | How many. |",
            "| `spec.kind` | one of `A`, `B` |  | The kind. |",
            "| `spec.name` | string, length at most 5, pattern `^(a\\|b)$` | required | Such as \\*.a\\|b. |",
            "| `spec.nets` | list, length at most 4; each: string |  | Networks. Rule: must be a network. |",
            "| `spec.amount` | integer, at least 0, or string, length at most 32 |  | How much. |",
            "| `spec.raw` | object of any fields |  | Raw. |",
            "| `spec.tags` | map, length at most 3; each value: string, length at least 1 |  | Tags. |",
        ] {
            assert!(page.contains(row), "{row}\n{page}");
        }
    }

    #[test]
    fn an_object_has_a_section_with_its_rules_and_a_link_to_it() {
        let item = json!({
            "type": "object",
            "properties": {"port": {"type": "integer", "description": "The port."}},
            "required": ["port"],
            "x-kubernetes-validations": [{"rule": "self.port > 0"}],
        });
        let list = json!({"type": "array", "minItems": 1, "maxItems": 1, "items": item, "description": "Doors."});
        let page = page(&json!({"frontDoors": list}));
        let row = "| [`spec.frontDoors`](#specfrontdoors) | list, length 1; each: object |  | Doors. |\n";
        assert!(page.contains(row), "{page}");
        let section = "\n### `spec.frontDoors[]`\n\n| field | type | default | meaning |\n|---|---|---|---|\n\
                       | `spec.frontDoors[].port` | integer | required | The port. |\n\nRules:\n\n- `self.port > 0`\n";
        assert!(page.contains(section), "{page}");
    }

    #[test]
    fn a_field_without_a_description_and_a_crd_without_a_schema_are_refused() {
        let undescribed = json!({"properties": {"a": {"properties": {"b": {"type": "string"}}, "description": "A."}}});
        let refused = reference(&crd(&undescribed));
        assert!(matches!(refused, Err(ReferenceError::NoDescription(path)) if path == "spec.a.b"));
        assert!(matches!(reference(&json!({})), Err(ReferenceError::NoSchema)));
        assert!(matches!(reference(&crd(&json!({}))), Err(ReferenceError::NoSchema)));
    }
}
