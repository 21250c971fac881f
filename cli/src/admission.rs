//! Offline admission with the rules of an API server: the schema and the CEL rules of the CRDs.

mod autoscaler;
mod hints;
mod metadata;
mod schema;
mod shown;

pub(crate) use hints::host as why_no_host;

use std::collections::BTreeMap;

use kube_cel::{CompiledSchema, Validator, compile_schema};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    manifest::{Document, Lines, Place, Problem},
    spelling,
};

/// The kinds of the API group, with their schemas and rules.
pub(crate) struct Admission {
    kinds: BTreeMap<String, Kind>,
    validator: Validator,
}

struct Kind {
    schema: Value,
    rules: CompiledSchema,
}

/// Result of the admission of a document.
pub(crate) enum Admitted {
    /// A valid object of the API group.
    Object(Box<Object>),
    /// An object of another API group, with its kind; it is ignored.
    Other(String),
    /// A namespace with its labels, by which gateways may select it.
    Namespace(String, BTreeMap<String, String>),
    /// The document is refused.
    Refused(Vec<Problem>),
}

/// A valid object of the API group.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) place: Place,
    /// The object without status, and without the nulls that an API server drops.
    pub(crate) value: Value,
    /// Line of each field.
    pub(crate) lines: Lines,
    /// Warnings about parts that an API server admits, but that will not work.
    pub(crate) warnings: Vec<Problem>,
}

impl Object {
    /// Formats the identity as `kind namespace/name`.
    pub(crate) fn identity(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }
}

impl Admission {
    /// Compiles the rules of the CRDs that this build generates.
    ///
    /// # Errors
    /// A CRD that does not serialise; the drift test of the CRDs catches that first.
    pub(crate) fn new() -> Result<Self, serde_json::Error> {
        let mut kinds = BTreeMap::new();
        for crd in crds::kinds()? {
            let kind = crd["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned();
            let schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
            let rules = compile_schema(&schema);
            kinds.insert(kind, Kind { schema, rules });
        }
        Ok(Self { kinds, validator: Validator::new() })
    }

    /// Admits or refuses one document. Objects without a namespace are in `default_namespace`.
    pub(crate) fn admit(&self, file: &str, document: &Document, default_namespace: &str) -> Admitted {
        let value = &document.value;
        let refuse = |object: Option<String>, field: &str, message: String| {
            let place = Place { file: file.to_owned(), line: document.line_of(field) };
            let field = (!field.is_empty()).then(|| field.to_owned());
            Problem { place, object, field, message }
        };
        let (Some(api_version), Some(kind)) = (value["apiVersion"].as_str(), value["kind"].as_str()) else {
            let (field, message) = not_a_manifest(value);
            return Admitted::Refused(vec![refuse(None, &field, message)]);
        };
        if let Some((field, message)) = unread_list(api_version, kind, value) {
            return Admitted::Refused(vec![refuse(Some(kind.to_owned()), &field, message)]);
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        if group != crds::GROUP {
            let of_group = self.of_another_group(group, (api_version, kind), value);
            return of_group.unwrap_or_else(|message| Admitted::Refused(vec![refuse(None, "apiVersion", message)]));
        }
        if self.kinds.contains_key(kind) && version != crds::VERSION {
            let message = format!("unknown version {version} of {kind}; this release supports {}", crds::VERSION);
            return Admitted::Refused(vec![refuse(None, "apiVersion", message)]);
        }
        let Some(known) = self.kinds.get(kind) else {
            let message = self.unknown_kind(kind, api_version);
            return Admitted::Refused(vec![refuse(None, "kind", message)]);
        };
        let name = value["metadata"]["name"].as_str().unwrap_or_default();
        let namespace = value["metadata"]["namespace"].as_str().unwrap_or(default_namespace);
        let identity =
            if name.is_empty() { format!("{kind} without a name") } else { format!("{kind} {namespace}/{name}") };
        let mut value = value.clone();
        schema::drop_nulls(&known.schema, &mut value);
        metadata::drop_nulls(&mut value);
        let problems = self.check(known, kind, &value);
        if let Some(fields) = value.as_object_mut() {
            // Status in a manifest is ignored; only the operator writes it.
            fields.remove("status");
        }
        if problems.is_empty() {
            let warning = |(field, message): (String, String)| refuse(Some(identity.clone()), &field, message);
            return Admitted::Object(Box::new(Object {
                kind: kind.to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                place: Place { file: file.to_owned(), line: document.line() },
                lines: document.lines().clone(),
                warnings: autoscaler::check(&value).into_iter().map(warning).collect(),
                value,
            }));
        }
        let problems = problems.into_iter().map(|(field, message)| {
            let hints::Explained { message, at } = hints::explain(&field, message, &value);
            let problem = refuse(Some(identity.clone()), &field, message);
            let line = at.map_or(problem.place.line, |at| document.line_of(&at));
            Problem { place: Place { line, ..problem.place }, ..problem }
        });
        Admitted::Refused(problems.collect())
    }

    /// Reads an object of another API group; an error if its group is a misspelling of Portlane's.
    fn of_another_group(
        &self,
        group: &str,
        (api_version, kind): (&str, &str),
        value: &Value,
    ) -> Result<Admitted, String> {
        if self.kinds.contains_key(kind) && group.is_empty() {
            let meant = format!("{}/{}", crds::GROUP, crds::VERSION);
            return Err(format!("'{api_version}' of {kind} has no API group; did you mean '{meant}'?"));
        }
        if self.kinds.contains_key(kind) && spelling::within(group, crds::GROUP, 3).is_some() {
            return Err(format!("unknown API group '{group}' of {kind}; did you mean '{}'?", crds::GROUP));
        }
        Ok(namespace(api_version, kind, value).unwrap_or_else(|| Admitted::Other(self.other(kind, api_version))))
    }

    /// The message for a kind that the API group does not have.
    fn unknown_kind(&self, kind: &str, api_version: &str) -> String {
        let kinds: Vec<&str> = self.kinds.keys().map(String::as_str).collect();
        let meant = spelling::closest(kind, kinds.iter().copied()).map(|meant| format!("did you mean {meant}? "));
        let (meant, kinds) = (meant.unwrap_or_default(), kinds.join(", "));
        let (group, version) = (crds::GROUP, crds::VERSION);
        format!("unknown kind {kind} of {api_version}; {meant}this release supports {kinds} of {group}/{version}")
    }

    /// Describes a kind of another API group. A kind that has the name of one of Portlane's is easily confused with it.
    fn other(&self, kind: &str, api_version: &str) -> String {
        if self.kinds.contains_key(kind) { format!("{kind} of {api_version}") } else { kind.to_owned() }
    }

    /// Checks the schema first, and evaluates rules only on values of the right shape, as an API server does.
    fn check(&self, kind: &Kind, name: &str, value: &Value) -> Vec<(String, String)> {
        if let Some(misspelt) = misspelt_metadata(value) {
            return vec![misspelt];
        }
        let mut wrong = metadata::check(value);
        if value["metadata"].is_object() {
            wrong.extend(schema::check(&kind.schema, value));
            wrong.extend(schema::unknown_in_status(&kind.schema, value));
        }
        let blocked = wrong.iter().any(|wrong| wrong.blocks_rules);
        let mut problems: Vec<(String, String)> = wrong.into_iter().map(|wrong| (wrong.field, wrong.message)).collect();
        if blocked {
            return problems;
        }
        if let Err(errors) = self.validator.validate_compiled(&kind.rules, value, None) {
            // An invalid name violates the stricter rule for names of Portlane's objects too, but is one mistake.
            let is_named = problems.iter().any(|(field, _)| field == "metadata.name");
            let errors = errors.into_vec().into_iter().map(|error| (error.field_path, error.message));
            problems.extend(errors.filter(|(_, message)| !(is_named && message.starts_with("metadata.name must"))));
        }
        hints::drop_consequences(&mut problems);
        if problems.is_empty() { typed(name, value) } else { problems }
    }
}

/// The field that was probably meant as the missing `apiVersion` or `kind`, if any, and the message.
fn not_a_manifest(value: &Value) -> (String, String) {
    let Some(fields) = value.as_object() else {
        let why = if value.is_array() {
            "a list at the top; write apiVersion: v1, kind: List and the list as items"
        } else {
            "it has no fields"
        };
        return (String::new(), format!("is not a Kubernetes manifest: {why}"));
    };
    for required in ["apiVersion", "kind"].into_iter().filter(|field| !value[*field].is_string()) {
        let near = fields.keys().find(|name| *name != required && spelling::closest(name, [required]).is_some());
        if let Some(near) = near {
            return (near.clone(), format!("unknown field; did you mean '{required}'?"));
        }
    }
    (String::new(), "is not a Kubernetes manifest: apiVersion and kind are required".to_owned())
}

/// Why a `List` was not read as its items: the field and the message; `None` if the document is not a `List`.
fn unread_list(api_version: &str, kind: &str, value: &Value) -> Option<(String, String)> {
    let fields = value.as_object().filter(|_| (api_version, kind) == ("v1", "List"))?;
    let misspelt = || fields.keys().find(|name| spelling::closest(name, ["items"]).is_some());
    let (field, message) = match fields.get("items") {
        Some(Value::Array(_) | Value::Null) => {
            ("", "must not be an item of a List; move its items into the outer List")
        }
        Some(_) => ("items", "must be a list"),
        None => {
            misspelt().map_or(("items", "is required"), |name| (name.as_str(), "unknown field; did you mean 'items'?"))
        }
    };
    Some((field.to_owned(), message.to_owned()))
}

/// A field at the root that was probably meant as the missing metadata. It is one mistake, which is reported once.
fn misspelt_metadata(value: &Value) -> Option<(String, String)> {
    let mut names = value.as_object().filter(|fields| !fields.contains_key("metadata"))?.keys();
    let misspelt = names.find(|name| spelling::closest(name, ["metadata"]).is_some())?;
    Some((misspelt.clone(), "unknown field; did you mean 'metadata'?".to_owned()))
}

/// Fields of metadata that are times.
const TIMES: [&str; 2] = ["creationTimestamp", "deletionTimestamp"];

/// Deserialises the object, which finds problems that the checks before missed.
fn typed(kind: &str, value: &Value) -> Vec<(String, String)> {
    let Err(error) = read_without(kind, value, &[]) else { return Vec::new() };
    // The error about a time does not name the field.
    let is_wrong = |time: &&str| {
        let others: Vec<&str> = TIMES.into_iter().filter(|other| other != time).collect();
        read_without(kind, value, &others).is_err()
    };
    if read_without(kind, value, &TIMES).is_ok() {
        let wrong = TIMES.into_iter().filter(is_wrong).map(|time| {
            let text = shown::cut(value["metadata"][time].as_str().unwrap_or_default());
            (format!("metadata.{time}"), format!("must be a time such as 2026-01-01T00:00:00Z, but is '{text}'"))
        });
        return wrong.collect();
    }
    vec![("metadata".to_owned(), format!("cannot be read: {error}"))]
}

/// Deserialises the object without its status and these fields of its metadata.
fn read_without(kind: &str, value: &Value, fields: &[&str]) -> Result<(), serde_json::Error> {
    let mut value = value.clone();
    if let Some(object) = value.as_object_mut() {
        object.remove("status");
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| !fields.contains(&name.as_str()));
    }
    match kind {
        "PortForward" => crds::PortForward::deserialize(value).map(drop),
        "ForwardAgent" => crds::ForwardAgent::deserialize(value).map(drop),
        _ => crds::ForwardGateway::deserialize(value).map(drop),
    }
}

fn namespace(api_version: &str, kind: &str, value: &Value) -> Option<Admitted> {
    if (api_version, kind) != ("v1", "Namespace") {
        return None;
    }
    let metadata = &value["metadata"];
    let label = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    let labels = metadata["labels"].as_object().map(|labels| labels.iter().filter_map(label).collect());
    Some(Admitted::Namespace(metadata["name"].as_str()?.to_owned(), labels.unwrap_or_default()))
}

#[cfg(test)]
mod tests;
