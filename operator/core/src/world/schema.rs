//! Whether the CRDs that are installed in a cluster know every field that this operator knows. An API server prunes
//! unknown fields silently, so under an older CRD a restriction such as `spec.access` has no effect.

use serde_json::Value;

/// Most missing fields of one kind that are named; further fields are only counted.
const NAMED: usize = 5;

/// What the installed CRD of one kind lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// The kind.
    pub kind: String,
    /// Number of missing fields. A missing field counts once, without the fields below it. 0: the CRD is complete.
    pub count: usize,
    /// The first missing fields as paths, such as `spec.access`; items of lists are `[]`, values of maps `{}`.
    pub fields: Vec<String>,
}

/// Compares own CRDs with the `OpenAPI` document (version 3) that an API server publishes for the group and version of
/// these CRDs. A kind that the document lacks altogether lacks its `spec` and its `status`.
#[must_use]
pub fn lacks<'a>(own: impl IntoIterator<Item = &'a Value>, published: &Value) -> Vec<Lack> {
    own.into_iter().map(|crd| lack(crd, published)).collect()
}

fn lack(crd: &Value, published: &Value) -> Lack {
    let kind = crd["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned();
    let versions = crd["spec"]["versions"].as_array();
    let version = versions.into_iter().flatten().find(|version| version["name"] == crds::VERSION);
    let mut missing = Vec::new();
    if let Some(version) = version {
        compare(&version["schema"]["openAPIV3Schema"], schema_of(&kind, published), "", &mut missing);
    }
    let count = missing.len();
    missing.truncate(NAMED);
    Lack { kind, count, fields: missing }
}

/// The schema of a kind that is not served.
static NOTHING: Value = Value::Null;

/// The published schema of a kind; null if the API server does not serve the kind.
fn schema_of<'a>(kind: &str, published: &'a Value) -> &'a Value {
    let is_it = |of: &Value| of["group"] == crds::GROUP && of["version"] == crds::VERSION && of["kind"] == kind;
    let schemas = published["components"]["schemas"].as_object();
    let found = schemas.into_iter().flatten().map(|(_, schema)| schema).find(|schema| {
        let kinds = schema["x-kubernetes-group-version-kind"].as_array();
        kinds.into_iter().flatten().any(is_it)
    });
    found.unwrap_or(&NOTHING)
}

/// Collects the fields below `path` that `own` has and `published` lacks.
fn compare(own: &Value, published: &Value, path: &str, missing: &mut Vec<String>) {
    if published["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    for (name, field) in own["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match published["properties"].get(name) {
            Some(published) => compare(field, published, &path, missing),
            None => missing.push(path),
        }
    }
    for (below, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if own[below].is_object() {
            compare(&own[below], &published[below], &format!("{path}{mark}"), missing);
        }
    }
}
