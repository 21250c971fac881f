//! Golden files: `tests/scenes/NAME.yaml` is what a cluster has, `NAME.80.txt` and `NAME.160.txt` are what a person sees
//! on terminals of these widths.
//!
//! `UPDATE=1 cargo test -p portlane-kubectl-core --test golden` rewrites the outputs; review the diff. The first document of a
//! scene has the time, the resources that the user may not read (`forbidden`), and the forward to describe, if the scene
//! is about one (`describe`). `sessions` has numbers of live sessions by forward. `crds: missing` is a cluster without the kinds of Portlane. `with: healthy` adds the objects
//! of the scene `healthy` whose kinds the scene does not have itself. `names` are words of the output: the cause, and the
//! next step.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

mod golden_files;

use std::collections::BTreeMap;

use kubectl_core::{
    access::{Fetched, Listed, Place, Unknown, items},
    check::Outcome,
    describe,
    installation::{Operator, OperatorFacts, crds as schemas},
    live::{Of, Reading, SessionList},
    render::{self, Look},
    status,
};
use operator_core::ObjectKey;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// Version of the program in all scenes.
const VERSION: &str = "0.1.0";

struct Scene {
    head: Value,
    objects: Vec<Value>,
}

impl Scene {
    fn read(text: &str) -> Self {
        let mut objects = serde_yaml::Deserializer::from_str(text).map(|it| Value::deserialize(it).expect("YAML"));
        let head = objects.next().expect("a first document");
        Self { head, objects: objects.collect() }
    }

    /// The scene with what it takes from the healthy one.
    fn with(mut self, healthy: &Self) -> Self {
        if self.head["with"] == "healthy" {
            let own: Vec<Value> = self.objects.iter().map(|object| object["kind"].clone()).collect();
            let others = healthy.objects.iter().filter(|object| !own.contains(&object["kind"]));
            self.objects.extend(others.cloned());
        }
        self
    }

    fn now(&self) -> k8s_openapi::jiff::Timestamp {
        self.head["now"].as_str().expect("a time").parse().expect("RFC 3339")
    }

    /// Fails if the user may not read the resource.
    fn allowed(&self, verb: &'static str, resource: &str, place: Place) -> Fetched<()> {
        if self.head["forbidden"].as_array().into_iter().flatten().any(|it| it == resource) {
            return Err(Unknown::Forbidden { verb, resource: resource.to_owned(), place });
        }
        Ok(())
    }

    fn of<K: DeserializeOwned>(&self, kind: &str) -> Vec<K> {
        let objects = self.objects.iter().filter(|object| object["kind"] == kind).cloned();
        objects.map(|object| serde_json::from_value(object).expect("an object of the kind")).collect()
    }

    fn list<K: DeserializeOwned>(&self, kind: &str, resource: &str) -> Fetched<Listed<K>> {
        self.allowed("list", resource, Place::Everywhere).map(|()| Listed::from(self.of(kind)))
    }

    fn get<K: DeserializeOwned>(&self, kind: &str, resource: &str, place: Place) -> Fetched<Option<K>> {
        self.allowed("get", resource, place).map(|()| self.of(kind).pop())
    }

    /// The schemas of this build, as an API server publishes them.
    fn published(&self) -> Option<Value> {
        if self.head["crds"] == "missing" {
            return None;
        }
        let schema = |crd: &crds::CrdYaml| {
            let mut schema = crd.document["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
            let kind = &crd.document["spec"]["names"]["kind"];
            schema["x-kubernetes-group-version-kind"] =
                json!([{"group": crds::GROUP, "version": crds::VERSION, "kind": kind}]);
            (kind.as_str().expect("a kind").to_owned(), schema)
        };
        let schemas: BTreeMap<String, Value> = crds::crds().expect("CRDs").iter().map(schema).collect();
        Some(json!({"components": {"schemas": schemas}}))
    }

    fn status(&self) -> status::Report {
        let deployments = self.list("Deployment", "deployments.apps");
        let operator = |deployment: &k8s_openapi::api::apps::v1::Deployment| {
            let operator = Operator::read(deployment)?;
            let place = Place::Namespace(operator.namespace.clone());
            let webhooks = "mutatingwebhookconfigurations.admissionregistration.k8s.io";
            Some(OperatorFacts {
                deployment: deployment.clone(),
                lease: self.get("Lease", "leases.coordination.k8s.io", place),
                webhook: operator
                    .webhook
                    .is_some()
                    .then(|| self.get("MutatingWebhookConfiguration", webhooks, Place::Cluster)),
                endpoints: self.list("EndpointSlice", "endpointslices.discovery.k8s.io"),
                metrics: operator
                    .serves_metrics
                    .then(|| self.get("APIService", "apiservices.apiregistration.k8s.io", Place::Cluster)),
                live: operator
                    .serves_live
                    .then(|| self.get("APIService", "apiservices.apiregistration.k8s.io", Place::Cluster)),
                operator,
            })
        };
        status::report(&status::Facts {
            program: VERSION.to_owned(),
            now: self.now(),
            published: Ok(self.published()),
            place: Place::Everywhere,
            operators: items(&deployments).iter().filter_map(operator).collect(),
            deployments,
            proxies: self.list("Pod", "pods"),
            gateways: self.list("ForwardGateway", "forwardgateways.portlane.dev"),
            agents: self.list("ForwardAgent", "forwardagents.portlane.dev"),
            forwards: self.list("PortForward", "portforwards.portlane.dev"),
            sessions: self.sessions(),
        })
    }

    fn sessions(&self) -> Vec<Reading> {
        let read = |(name, total): (&String, &Value)| {
            let (namespace, name) = name.split_once('/').expect("NAMESPACE/NAME");
            let total = total.as_u64().expect("a number");
            (Of::Forward(ObjectKey::new(namespace, name)), Ok(SessionList { total, ..SessionList::default() }))
        };
        self.head["sessions"].as_object().into_iter().flatten().map(read).collect()
    }

    fn describe(&self) -> describe::Report {
        let forward: crds::PortForward = self.of("PortForward").pop().expect("a forward");
        let all: Vec<k8s_openapi::api::core::v1::Service> = self.of("Service");
        let service = |key: &ObjectKey| {
            let found = all.iter().find(|service| service.metadata.name.as_ref() == Some(&key.name)).cloned();
            self.allowed("get", "services", Place::Namespace(key.namespace.clone())).map(|()| found)
        };
        let slices = |_: &ObjectKey| self.list("EndpointSlice", "endpointslices.discovery.k8s.io");
        let dialling: Vec<crds::ForwardAgent> = self.of("ForwardAgent");
        let agent = |key: &ObjectKey| {
            let found = dialling.iter().find(|agent| agent.metadata.name.as_ref() == Some(&key.name)).cloned();
            let place = Place::Namespace(key.namespace.clone());
            self.allowed("get", "forwardagents.portlane.dev", place).map(|()| found)
        };
        let keys = describe::services(&forward);
        let gateway = forward.spec.placement.gateway.as_ref();
        let gateway = gateway.map(|_| self.get("ForwardGateway", "forwardgateways.portlane.dev", Place::Everywhere));
        describe::report(&describe::Facts {
            now: self.now(),
            gateway,
            services: keys.iter().map(|key| (key.clone(), service(key))).collect(),
            slices: keys.iter().map(|key| (key.clone(), slices(key))).collect(),
            agents: describe::agents(&forward).into_iter().map(|key| (key.clone(), agent(&key))).collect(),
            pods: self.list("Pod", "pods"),
            events: self.list("Event", "events"),
            forward,
        })
    }

    fn text(&self, look: Look) -> String {
        if self.head["describe"] == true {
            render::describe(&self.describe(), look)
        } else {
            render::status(&self.status(), look)
        }
    }
}

fn scenes() -> Vec<(String, Scene)> {
    let scenes = golden_files::scenes("scenes");
    assert!(scenes.len() >= 4, "only {} scenes", scenes.len());
    let (_, healthy) = scenes.iter().find(|(name, _)| name.ends_with("/healthy")).expect("the scene exists");
    let healthy = Scene::read(healthy);
    scenes.iter().map(|(name, text)| (name.clone(), Scene::read(text).with(&healthy))).collect()
}

/// The broken installations that the plugin must explain, and the scenes in which it does.
const BROKEN: [(&str, &[&str]); 14] = [
    ("no CRDs", &["without-crds"]),
    ("webhook down", &["webhook-down"]),
    ("a port taken", &["forwards", "describe-port-taken"]),
    ("a missing Service", &["forwards", "describe-missing-service"]),
    ("a forbidden address", &["forwards", "describe-forbidden-address"]),
    ("an old sidecar", &["old-sidecar"]),
    ("a fleet that waits for another", &["old-fleet"]),
    ("a full limit", &["forwards", "describe-full-limit"]),
    ("a dead backend", &["forwards", "describe-dead-backend"]),
    ("a proxy that cannot reach the operator", &["forwards", "describe-cut-off"]),
    ("a quota", &["forwards", "describe-quota"]),
    ("an agent that is not connected", &["agents", "describe-agents"]),
    ("no rights", &["without-rights", "describe-without-rights"]),
    ("an operator that is down", &["operator-down", "describe-operator-down"]),
];

#[test]
fn every_broken_installation_has_its_cause_and_the_next_step_named() {
    let look = Look { width: None, is_wide: true, is_coloured: false };
    let scenes = scenes();
    for (broken, expected) in BROKEN {
        for scene in expected {
            let found = scenes.iter().find(|(path, _)| path.ends_with(&format!("/{scene}")));
            let (_, found) = found.unwrap_or_else(|| panic!("{broken}: no scene {scene}"));
            let names = found.head["names"].as_array().unwrap_or_else(|| panic!("{scene} names nothing"));
            let text = found.text(look);
            for name in names.iter().filter_map(Value::as_str) {
                assert!(text.contains(name), "{broken}: {name} is not in\n{text}");
            }
        }
    }
}

#[test]
fn outputs_are_those_of_the_golden_files() {
    for (name, scene) in scenes() {
        golden_files::compare(&name, |look| scene.text(look));
    }
}

#[test]
fn no_table_is_wider_than_the_terminal() {
    for (name, scene) in scenes() {
        for (width, is_wide) in [(20, false), (20, true), (80, false), (80, true), (160, false), (160, true)] {
            let text = scene.text(Look { width: Some(width), is_wide, is_coloured: false });
            let table = |title: &str, rows: usize| {
                let lines: Vec<&str> = text.lines().skip_while(|line| *line != title).skip(1).take(rows + 1).collect();
                assert_eq!(lines.len(), rows + 1, "{name}: {title} is not in\n{text}");
                assert!(lines.iter().all(|line| line.chars().count() <= width), "{name} at {width}:\n{text}");
            };
            if scene.head["describe"] == true {
                let is_event = |line: &&str| !line.is_empty();
                let rows = text.lines().skip_while(|line| *line != "events").skip(2).take_while(is_event).count();
                assert_eq!(rows > 0, !scene.describe().events.is_empty(), "{name}:\n{text}");
                if rows > 0 {
                    table("events", rows);
                }
            } else {
                let report = scene.status();
                let tables = [
                    ("Gateways", report.gateways.len()),
                    ("Agents", report.agents.len()),
                    ("Forwards", report.forwards.len()),
                ];
                for (title, rows) in tables.into_iter().filter(|(_, rows)| *rows > 0) {
                    table(title, rows);
                }
            }
        }
    }
}

#[test]
fn no_line_but_a_command_is_wider_than_a_usual_terminal() {
    for (name, scene) in scenes() {
        for (width, is_wide) in [(80, false), (80, true), (160, false), (160, true)] {
            let text = scene.text(Look { width: Some(width), is_wide, is_coloured: false });
            // The next step is not wrapped: a person copies the command in it.
            let mut lines = text.lines().filter(|line| !line.trim_start().starts_with("> "));
            assert!(lines.all(|line| line.chars().count() <= width), "{name} at {width}:\n{text}");
        }
    }
}

#[test]
fn colours_change_no_column() {
    for (name, scene) in scenes() {
        let look = Look { width: Some(80), is_wide: false, is_coloured: true };
        let coloured = scene.text(look);
        assert!(coloured.contains("\u{1b}["), "{name} has no colours");
        let plain = anstream::adapter::strip_str(&coloured).to_string();
        assert_eq!(plain, scene.text(Look { is_coloured: false, ..look }), "{name}");
    }
}

#[test]
fn a_report_for_programs_has_what_the_text_has() {
    for (name, scene) in scenes() {
        let report = if scene.head["describe"] == true { json!(scene.describe()) } else { json!(scene.status()) };
        let outcomes = ["Ok", "Warning", "Unknown", "Failed"];
        let first = if scene.head["describe"] == true { &report["ready"] } else { &report["checks"][0] };
        assert!(outcomes.contains(&first["outcome"].as_str().expect("an outcome")), "{name}: {report}");
    }
}

#[test]
fn the_verdict_counts_failures_before_missing_rights() {
    let verdict = |name: &str| {
        let (_, scene) = scenes().into_iter().find(|(path, _)| path.ends_with(name)).expect("the scene exists");
        scene.status().verdict()
    };
    assert_eq!(verdict("/healthy"), status::Verdict::Ok);
    assert_eq!(verdict("/broken"), status::Verdict::Failed);
    assert_eq!(verdict("/without-rights"), status::Verdict::Incomplete);
    assert_eq!(verdict("/without-crds"), status::Verdict::Failed);
}

#[test]
fn fields_and_kinds_that_a_cluster_lacks_are_named() {
    let without = |path: &str, name: &str| {
        let mut published = Scene::read("{}").published().expect("schemas");
        let parent = published.pointer_mut(path).and_then(Value::as_object_mut).expect("an object");
        parent.remove(name);
        let check = schemas(VERSION, &Ok(Some(published)));
        (check.outcome, check.detail)
    };
    assert_eq!(without("/components/schemas", "NoSuchKind").0, Outcome::Ok);
    let (outcome, detail) = without("/components/schemas/PortForward/properties/spec/properties", "suspend");
    assert!(outcome == Outcome::Warning && detail.ends_with(": PortForward lacks 1 (spec.suspend)"), "{detail}");
    let missing = (Outcome::Failed, "the CRD of ForwardAgent is missing".to_owned());
    assert_eq!(without("/components/schemas", "ForwardAgent"), missing);
}
