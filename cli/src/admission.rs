//! Admission as by an API server: the schema and the CEL rules of the CRDs, evaluated offline.

mod metadata;
mod schema;

use std::collections::BTreeMap;

use kube_cel::{CompiledSchema, Validator, compile_schema};
use serde::Deserialize;
use serde_json::Value;

use crate::manifest::{Document, Place, Problem};

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
    /// An object of another API group, of this kind, which is ignored.
    Other(String),
    /// A namespace with its labels, which gateways may select by.
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
    /// The object without the nulls that an API server drops, and without status.
    pub(crate) value: Value,
    /// Line of each item of `spec.listeners`.
    pub(crate) listener_lines: Vec<usize>,
}

impl Object {
    /// `kind namespace/name`.
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
        for crd in crds::crds()? {
            let kind = crd.document["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned();
            let schema = crd.document["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
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
            let message = "is not a Kubernetes manifest: apiVersion and kind are required".to_owned();
            return Admitted::Refused(vec![refuse(None, "", message)]);
        };
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        if group != crds::GROUP {
            if self.kinds.contains_key(kind) && schema::distance(group, crds::GROUP) <= 3 {
                let message = format!("unknown API group '{group}' of {kind}; did you mean '{}'?", crds::GROUP);
                return Admitted::Refused(vec![refuse(None, "apiVersion", message)]);
            }
            return namespace(api_version, kind, value).unwrap_or_else(|| Admitted::Other(kind.to_owned()));
        }
        if self.kinds.contains_key(kind) && version != crds::VERSION {
            let message = format!("unknown version {version} of {kind}; this release supports {}", crds::VERSION);
            return Admitted::Refused(vec![refuse(None, "apiVersion", message)]);
        }
        let Some(known) = self.kinds.get(kind) else {
            let kinds: Vec<&str> = self.kinds.keys().map(String::as_str).collect();
            let message = format!(
                "unknown kind {kind} of {api_version}; this release supports {} of {}/{}",
                kinds.join(" and "),
                crds::GROUP,
                crds::VERSION
            );
            return Admitted::Refused(vec![refuse(None, "kind", message)]);
        };
        let name = value["metadata"]["name"].as_str().unwrap_or_default();
        let namespace = value["metadata"]["namespace"].as_str().unwrap_or(default_namespace);
        let identity = format!("{kind} {namespace}/{name}");
        let mut value = value.clone();
        schema::drop_nulls(&known.schema, &mut value);
        metadata::drop_nulls(&mut value);
        let problems = self.check(known, kind, &value);
        if let Some(fields) = value.as_object_mut() {
            // Status in a manifest is ignored; only the operator writes it.
            fields.remove("status");
        }
        if problems.is_empty() {
            let listeners = value["spec"]["listeners"].as_array().map_or(0, Vec::len);
            return Admitted::Object(Box::new(Object {
                kind: kind.to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                place: Place { file: file.to_owned(), line: document.line() },
                listener_lines: (0..listeners).map(|at| document.line_of(&format!("spec.listeners[{at}]"))).collect(),
                value,
            }));
        }
        let problems = problems.into_iter().map(|(field, message)| refuse(Some(identity.clone()), &field, message));
        Admitted::Refused(problems.collect())
    }

    /// Checks the schema first, and evaluates rules only on values of the right shape, as an API server does.
    fn check(&self, kind: &Kind, name: &str, value: &Value) -> Vec<(String, String)> {
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
            problems.extend(errors.into_vec().into_iter().map(|error| (error.field_path, error.message)));
        }
        if problems.is_empty() { typed(name, value) } else { problems }
    }
}

/// Deserialises the object, which finds problems that the checks before missed.
fn typed(kind: &str, value: &Value) -> Vec<(String, String)> {
    let mut value = value.clone();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
    }
    let read = match kind {
        "PortForward" => crds::PortForward::deserialize(value).map(drop),
        _ => crds::ForwardGateway::deserialize(value).map(drop),
    };
    read.err().map(|error| ("metadata".to_owned(), format!("cannot be read: {error}"))).into_iter().collect()
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
mod tests {
    use super::*;
    use crate::manifest::parse;

    fn verdict(text: &str) -> Result<usize, Vec<String>> {
        let admission = Admission::new().expect("rules");
        let mut refused = Vec::new();
        let mut valid = 0;
        for document in parse("f", text).expect("parses") {
            match admission.admit("f", &document, "default") {
                Admitted::Object(_) => valid += 1,
                Admitted::Other(_) | Admitted::Namespace(..) => {}
                Admitted::Refused(problems) => refused.extend(problems.iter().map(ToString::to_string)),
            }
        }
        if refused.is_empty() { Ok(valid) } else { Err(refused) }
    }

    fn forward(spec: &str) -> String {
        format!("apiVersion: portlane.dev/v1alpha1\nkind: PortForward\nmetadata: {{name: a}}\nspec:\n{spec}")
    }

    const LISTENERS: &str =
        "  listeners:\n  - name: l\n    protocol: TCP\n    port: 1\n    backends: [{local: {port: 2}}]\n";
    const SIDECAR: &str = "  placement: {sidecar: {selector: {}}}\n";

    #[track_caller]
    fn refused(text: &str, with: &str) {
        let problems = verdict(text).expect_err("refused");
        assert!(problems.iter().any(|problem| problem.contains(with)), "{with:?} is not in {problems:#?}");
    }

    #[test]
    fn every_rule_of_the_crd_compiles() {
        for (name, kind) in Admission::new().expect("rules").kinds {
            let errors = kind.rules.compilation_errors();
            assert!(errors.is_empty(), "{name}: {errors:?}");
        }
    }

    #[test]
    fn a_valid_forward_is_admitted_and_other_kinds_are_passed_over() {
        let other = "---\napiVersion: v1\nkind: Service\nmetadata: {name: x}\n";
        assert_eq!(verdict(&(forward(&format!("{SIDECAR}{LISTENERS}")) + other)), Ok(1));
    }

    #[test]
    fn unknown_kinds_of_ours_are_refused() {
        refused("apiVersion: portlane.dev/v1alpha1\nkind: PortForwrad\n", "f:2: kind: unknown kind PortForwrad");
        refused("apiVersion: portlane.dev/v1\nkind: PortForward\n", "apiVersion: unknown version v1");
        refused("a: 1\n", "apiVersion and kind are required");
    }

    #[test]
    fn shape_is_checked_with_file_line_object_and_field() {
        let text = forward(&format!("{SIDECAR}{LISTENERS}")).replace("port: 1\n", "port: 70000\n");
        refused(&text, "f:9: PortForward default/a: spec.listeners[0].port: must be at most 65535");
        refused(&text.replace("70000", "'x'"), "must be an integer");
        refused(&text.replace("70000", "010.5"), "must be an integer");
        refused(&text.replace("port: 70000", "prot: 1"), "unknown field");
        let misspelt = verdict(&text.replace("protocol", "protokol").replace("70000", "1")).expect_err("refused");
        assert_eq!(misspelt.len(), 1, "one mistake, one message: {misspelt:?}");
        refused(&text.replace("TCP", "SCTP").replace("70000", "1"), "must be one of TCP, UDP");
        refused(&text.replace("name: l", "name: L_").replace("70000", "1"), "must match");
        refused(&text.replace("protocol: TCP", "protocol:").replace("70000", "1"), "protocol: is required");
    }

    #[test]
    fn nulls_are_dropped_where_an_api_server_drops_them() {
        let text = forward(&format!("  suspend: ~\n  timeouts:\n{SIDECAR}{LISTENERS}"));
        assert_eq!(verdict(&text), Ok(1));
        refused(&text.replace("[{local: {port: 2}}]", "[~]"), "is null");
    }

    #[test]
    fn a_misspelt_group_is_reported() {
        let text = forward(&format!("{SIDECAR}{LISTENERS}"));
        refused(&text.replace("portlane.dev", "portlan.dev"), "did you mean 'portlane.dev'?");
        assert_eq!(verdict(&text.replace("portlane.dev", "example.com")), Ok(0));
    }

    #[test]
    fn lists_are_bounded_and_their_keys_unique() {
        let item = "  - {name: l, protocol: TCP, port: 1, backends: [{local: {port: 2}}]}\n";
        refused(&forward(&format!("{SIDECAR}  listeners:\n{item}{item}")), "same name");
        refused(&forward(&format!("{SIDECAR}  listeners: []\n")), "at least 1");
        refused(&forward(SIDECAR), "spec.listeners: is required");
    }

    #[test]
    fn every_cel_rule_refuses_what_it_is_there_for() {
        let with = |from: &str, to: &str| forward(&format!("{SIDECAR}{LISTENERS}")).replace(from, to);
        refused(
            &with("{sidecar: {selector: {}}}", "{sidecar: {selector: {}}, gateway: {name: x}}"),
            "exactly one of sidecar",
        );
        refused(&with("{sidecar: {selector: {}}}", "{}"), "exactly one of sidecar");
        refused(&with("    port: 1\n", ""), "required in a sidecar");
        refused(&with("{sidecar: {selector: {}}}", "{gateway: {name: x}}"), "needs placement.sidecar");
        refused(
            &with("{local: {port: 2}}", "{local: {port: 2}, address: {host: a, port: 1}}"),
            "exactly one of service",
        );
        refused(&with("{local: {port: 2}}", "{address: {host: 'a b', port: 1}}"), "IP address or a DNS name");
        refused(
            &with(
                "  listeners:\n",
                "  listeners:\n  - {name: m, protocol: TCP, port: 1, backends: [{local: {port: 2}}]}\n",
            ),
            "same protocol and port",
        );
        refused(
            &with("  listeners:\n", "  retry: {initialBackoffMillis: 9, maxBackoffMillis: 8}\n  listeners:\n"),
            "greater than maxBackoffMillis",
        );
        refused(&with("name: a}", &format!("name: {}}}", "a".repeat(53))), "at most 52");
        refused(&with("name: a}", "name: my.edge}"), "DNS-1035");
        refused(
            &with("selector: {}", "selector: {matchExpressions: [{key: a, operator: In}]}"),
            "values must be given",
        );
    }

    #[test]
    fn gateway_rules() {
        let gateway = |spec: &str| {
            format!("apiVersion: portlane.dev/v1alpha1\nkind: ForwardGateway\nmetadata: {{name: g}}\nspec: {spec}\n")
        };
        assert_eq!(verdict(&gateway("{}")), Ok(1));
        assert_eq!(
            verdict(&gateway("{allowedForwards: {namespaces: {from: All}, addressCIDRs: [10.0.0.0/8]}}")),
            Ok(1)
        );
        refused(&gateway("{allowedForwards: {namespaces: {from: Selector}}}"), "selector must be set");
        refused(&gateway("{allowedForwards: {addressCIDRs: [10.0.0.0]}}"), "must be a network");
        refused(&gateway("{allowedForwards: {ports: [{protocol: TCP, port: 5, endPort: 4}]}}"), "must not be less");
        refused(&gateway("{allocation: [{port: 2000, endPort: 1999}]}"), "allocation range must not be less");
    }

    #[test]
    fn metadata_is_checked_too() {
        let with = |metadata: &str| forward(&format!("{SIDECAR}{LISTENERS}")).replace("{name: a}", metadata);
        refused(&with("{}"), "metadata.name");
        refused(&with("{name: a, labels: {x: 1}}"), "metadata.labels.x");
        refused(&with("{name: a, namspace: b}"), "unknown field");
        refused(&with("{name: a, finalizers: zz}"), "metadata.finalizers: must be a list");
        refused(&with("{name: a, labels: {app: 'a b'}}"), "metadata.labels.app");
        refused(&with("{name: a, labels: {'!!': a}}"), "metadata.labels.!!");
    }

    #[test]
    fn hosts_are_addresses_or_names() {
        let with = |host: &str| {
            let address = format!("{{address: {{host: '{host}', port: 1}}}}");
            forward(&format!("{SIDECAR}{LISTENERS}")).replace("{local: {port: 2}}", &address)
        };
        for good in ["10.0.0.1", "::1", "db", "db.example.com", "db.example.com.", "3com.example.com"] {
            assert_eq!(verdict(&with(good)), Ok(1), "{good}");
        }
        for bad in ["10.0.0.256", "010.0.0.1", "a b", "-a", "a..b", "a_b", "[::1]"] {
            refused(&with(bad), "IP address or a DNS name");
        }
    }
}
