//! Compares the CRDs that are installed in a cluster with the fields that this operator knows. An API server prunes
//! unknown fields silently, so under an older CRD a restriction such as `spec.access` has no effect. Under a newer CRD
//! the same happens in the operator.

use std::collections::BTreeMap;

use serde_json::Value;

/// Most missing fields of one kind that are named; further fields are only counted.
const NAMED: usize = 5;

/// The fields that the installed CRD of one kind lacks, and those of that CRD that the operator lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lack {
    /// The kind.
    pub kind: String,
    /// Number of missing fields. A missing field counts once, without the fields below it. 0: the CRD is complete.
    pub count: usize,
    /// The first missing fields as paths, such as `spec.access`; items of lists are `[]`, values of maps `{}`.
    pub fields: Vec<String>,
    /// Number of fields of `spec` that the installed CRD has and this operator ignores.
    pub ignored_count: usize,
    /// The first ignored fields.
    pub ignored: Vec<String>,
}

/// Fields of `spec` that the API server drops from manifests, by kind.
pub type Dropped = BTreeMap<String, Vec<String>>;

/// The part of these comparisons that the statuses of objects report.
#[must_use]
pub fn dropped(lacks: &[Lack]) -> Dropped {
    let of_spec = |lack: &Lack| -> Vec<String> {
        let mut named: Vec<_> = lack.fields.iter().filter(|field| field.starts_with("spec")).cloned().collect();
        if !named.is_empty() && lack.count > lack.fields.len() {
            named.push("and others".to_owned());
        }
        named
    };
    let all = lacks.iter().map(|lack| (lack.kind.clone(), of_spec(lack)));
    all.filter(|(_, fields): &(String, Vec<String>)| !fields.is_empty()).collect()
}

/// The warning for the objects of a kind, if the API server drops fields from them.
#[must_use]
pub fn warning(dropped: &Dropped, kind: &str) -> Option<String> {
    let fields = dropped.get(kind)?.join(", ");
    Some(format!(
        "the installed CRD is older than the operator, and the API server drops these fields from manifests: {fields}; \
         install the CRDs of the operator's release, and apply the manifests again"
    ))
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
    let (mut fields, mut ignored) = (Vec::new(), Vec::new());
    if let Some(version) = version {
        let (own, published) = (&version["schema"]["openAPIV3Schema"], schema_of(&kind, published));
        compare(own, published, "", &mut fields);
        compare(&published["properties"]["spec"], &own["properties"]["spec"], "spec", &mut ignored);
    }
    let (count, ignored_count) = (fields.len(), ignored.len());
    fields.truncate(NAMED);
    ignored.truncate(NAMED);
    Lack { kind, count, fields, ignored_count, ignored }
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
