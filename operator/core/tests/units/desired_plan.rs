//! The writes that bring the children of a gateway in line.

use std::collections::BTreeSet;

use crds::ForwardGateway;
use kube::core::DynamicObject;
use operator_core::{
    ObjectKey,
    desired::{
        ca::Trusted,
        gateway::{Desired, Fleets},
        plan::{Found, Plan, Step, Taken, plan},
        revision::revision,
    },
    names::{GATEWAY_REVISION, HANDOVER, INSTALLATION_REVISION, NAME},
    world::child::ChildKind,
};
use proxy_api::Transport;
use serde_json::{Value, json};

const SCALED: &str = r#"{"autoscaling": {"minReplicas": 3, "maxReplicas": 9, "targetConnectionsPerPod": 5}}"#;

/// The children of a gateway without claims, in order.
const CHILDREN: [ChildKind; 5] = [
    ChildKind::ServiceAccount,
    ChildKind::Deployment,
    ChildKind::PodDisruptionBudget,
    ChildKind::NetworkPolicy,
    ChildKind::Service,
];

/// A gateway with a listener on port 80.
fn desired(spec: &Value) -> Desired {
    let metadata = json!({"name": "edge", "namespace": "ns", "uid": "uid-edge"});
    let gateway: ForwardGateway =
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a gateway");
    Desired {
        key: ObjectKey::new("ns", "edge"),
        gateway,
        fleets: Fleets { network_policies: true, ..Fleets::default() },
        keeps_pods: false,
        trusted: Trusted { bundle: "A;B;".to_owned(), signing: "A;".to_owned(), since: 0 },
        ports: BTreeSet::from([(Transport::Tcp, 80)]),
        attempt: 1,
    }
}

fn scaled() -> Desired {
    desired(&serde_json::from_str(SCALED).expect("JSON"))
}

/// An object that has the name of a child, and this owner.
fn object(kind: ChildKind, owner: &str, spec: &Value) -> DynamicObject {
    let owners = json!([{"apiVersion": "v1", "kind": "X", "name": "x", "uid": owner}]);
    let uid = format!("uid-of-{}", kind.as_str());
    let metadata = json!({"name": "edge", "namespace": "ns", "uid": uid, "ownerReferences": owners});
    let object = json!({
        "apiVersion": kind.api_version(), "kind": kind.as_str(), "metadata": metadata, "spec": spec,
    });
    serde_json::from_value(object).expect("an object")
}

fn found(owner: &str, kinds: &[ChildKind]) -> Found {
    kinds.iter().map(|kind| (*kind, object(*kind, owner, &json!({})))).collect()
}

/// A Deployment with these replicas, which this field manager set.
fn deployment(replicas: i64, manager: &str) -> Found {
    let mut deployment = object(ChildKind::Deployment, "uid-edge", &json!({"replicas": replicas}));
    let fields = json!({"f:spec": {"f:replicas": {}}});
    let entry = json!([{"manager": manager, "operation": "Apply", "fieldsV1": fields}]);
    deployment.metadata.managed_fields = Some(serde_json::from_value(entry).expect("entries"));
    Found::from([(ChildKind::Deployment, deployment)])
}

/// Who applies what, in order; `-` removes.
fn order(plan: &Plan) -> Vec<(ChildKind, &'static str)> {
    let name = |step: &Step| match step {
        Step::Apply { kind, manager, .. } => (*kind, *manager),
        Step::Remove { kind, .. } => (*kind, "-"),
    };
    plan.steps.iter().map(name).collect()
}

/// The manifests of a kind, in order.
fn manifests(plan: &Plan, wanted: ChildKind) -> Vec<Value> {
    let manifest = |step: &Step| match step {
        Step::Apply { kind, manifest, .. } if *kind == wanted => Some(manifest.clone()),
        _ => None,
    };
    plan.steps.iter().filter_map(manifest).collect()
}

#[test]
fn the_children_of_a_new_gateway_are_applied_in_order() {
    let plan = plan(&desired(&json!({})), &Found::new());
    assert_eq!(order(&plan), CHILDREN.map(|kind| (kind, NAME)));
    assert_eq!(plan.taken, None);
    let names = ["ServiceAccount", "Deployment", "PodDisruptionBudget", "NetworkPolicy", "Service"];
    for (kind, name) in CHILDREN.into_iter().zip(names) {
        let manifest = &manifests(&plan, kind)[0];
        assert_eq!(
            (kind.as_str(), &manifest["kind"], &manifest["metadata"]["uid"]),
            (name, &json!(name), &json!(null))
        );
        let (group, version) = kind.group_and_version();
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        assert_eq!(manifest["apiVersion"], api_version);
    }
}

#[test]
fn a_child_that_exists_is_applied_to_that_very_object() {
    let plan = plan(&desired(&json!({})), &found("uid-edge", &CHILDREN));
    assert_eq!(order(&plan), CHILDREN.map(|kind| (kind, NAME)));
    for kind in CHILDREN {
        assert_eq!(manifests(&plan, kind)[0]["metadata"]["uid"], format!("uid-of-{}", kind.as_str()));
    }
}

#[test]
fn replicas_are_handed_over_to_the_autoscaler_once() {
    let handed = plan(&scaled(), &deployment(4, NAME));
    let fleet = [(ChildKind::Deployment, HANDOVER), (ChildKind::Deployment, NAME)];
    assert_eq!(order(&handed)[1..3], fleet);
    let manifests_of = |plan: &Plan| manifests(plan, ChildKind::Deployment);
    let kept = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "edge", "namespace": "ns", "uid": "uid-of-Deployment"}, "spec": {"replicas": 4},
    });
    assert_eq!(manifests_of(&handed)[0], kept);
    assert_eq!(manifests_of(&handed)[1]["spec"].get("replicas"), None, "the operator gives them up");
    for manager in [HANDOVER, "kube-controller-manager"] {
        let later = plan(&scaled(), &deployment(4, manager));
        assert_eq!(order(&later), CHILDREN.map(|kind| (kind, NAME)), "{manager} holds them");
        assert_eq!(manifests_of(&later)[0]["spec"].get("replicas"), None);
    }
}

#[test]
fn a_fleet_parked_at_zero_is_handed_over_with_the_least_replicas() {
    let handed = plan(&scaled(), &deployment(0, NAME));
    assert_eq!(manifests(&handed, ChildKind::Deployment)[0]["spec"]["replicas"], 3);
}

#[test]
fn a_new_fleet_with_an_autoscaler_begins_with_the_least_replicas() {
    let new = plan(&scaled(), &Found::new());
    assert_eq!(order(&new), CHILDREN.map(|kind| (kind, NAME)));
    assert_eq!(manifests(&new, ChildKind::Deployment)[0]["spec"]["replicas"], 3);
}

#[test]
fn replicas_of_a_fleet_without_an_autoscaler_are_those_of_the_spec() {
    let plan = plan(&desired(&json!({"replicas": 5})), &deployment(4, NAME));
    assert_eq!(order(&plan), CHILDREN.map(|kind| (kind, NAME)));
    assert_eq!(manifests(&plan, ChildKind::Deployment)[0]["spec"]["replicas"], 5);
}

#[test]
fn nothing_is_written_if_the_deployment_is_somebody_elses() {
    let plan = plan(&desired(&json!({})), &found("uid-other", &[ChildKind::Deployment]));
    let taken = Taken { kind: ChildKind::Deployment, name: "edge".to_owned() };
    let message = "Deployment edge exists and has another owner: rename the gateway or remove that object";
    assert_eq!(taken.to_string(), message);
    assert_eq!(plan, Plan { steps: Vec::new(), taken: Some(taken) });
}

#[test]
fn a_child_that_is_somebody_elses_ends_the_plan() {
    for (at, kind) in CHILDREN.into_iter().enumerate().filter(|(_, kind)| *kind != ChildKind::Deployment) {
        let plan = plan(&desired(&json!({})), &found("uid-other", &[kind]));
        assert_eq!(order(&plan), CHILDREN[..at].iter().map(|kind| (*kind, NAME)).collect::<Vec<_>>());
        assert_eq!(plan.taken, Some(Taken { kind, name: "edge".to_owned() }));
    }
}

#[test]
fn an_object_without_owners_is_somebody_elses() {
    let mut found = found("uid-edge", &[ChildKind::Service]);
    for object in found.values_mut() {
        object.metadata.owner_references = None;
    }
    let plan = plan(&desired(&json!({})), &found);
    assert_eq!(plan.taken.map(|taken| taken.kind), Some(ChildKind::Service));
}

#[test]
fn a_gateway_that_wants_no_service_has_its_own_removed() {
    let wanted = desired(&json!({"service": {"type": "None"}}));
    let kinds = &CHILDREN[..4];
    let applied: Vec<_> = kinds.iter().map(|kind| (*kind, NAME)).collect();
    let none = plan(&wanted, &Found::new());
    assert_eq!((order(&none), none.taken), (applied.clone(), None));
    let own = plan(&wanted, &found("uid-edge", &[ChildKind::Service]));
    let removal = Step::Remove { kind: ChildKind::Service, uid: "uid-of-Service".to_owned() };
    assert_eq!((own.steps.len(), own.steps.last(), &own.taken), (5, Some(&removal), &None));
    let foreign = plan(&wanted, &found("uid-other", &[ChildKind::Service]));
    assert_eq!(order(&foreign), applied, "a Service of another owner is left alone");
    assert_eq!(foreign.taken, None, "and blocks no child");
}

#[test]
fn the_service_of_a_gateway_without_listeners_stays_as_it_is() {
    let idle = Desired { ports: BTreeSet::new(), ..desired(&json!({})) };
    for owner in ["uid-edge", "uid-other"] {
        let plan = plan(&idle, &found(owner, &[ChildKind::Service]));
        assert_eq!((plan.steps.len(), plan.taken), (4, None));
    }
}

#[test]
fn a_fleet_keeps_the_certificates_that_it_has_while_they_lead_to_the_operator() {
    let roots = |existing: Option<&str>| {
        let env = json!([{"name": "OTHER", "value": "A;"}, {"name": "PORTLANE_ROOTS", "value": existing}]);
        let spec = json!({"template": {"spec": {"containers": [{"env": env}]}}});
        let existing = object(ChildKind::Deployment, "uid-edge", &spec);
        let plan = plan(&desired(&json!({})), &Found::from([(ChildKind::Deployment, existing)]));
        let manifest = &manifests(&plan, ChildKind::Deployment)[0];
        let env = manifest["spec"]["template"]["spec"]["containers"][0]["env"].as_array().expect("variables").clone();
        let roots = env.iter().find(|variable| variable["name"] == "PORTLANE_ROOTS").expect("there");
        roots["value"].as_str().expect("text").to_owned()
    };
    assert_eq!(roots(Some("old;A;")), "old;A;");
    assert_eq!(roots(Some("old;")), "A;B;");
    assert_eq!(roots(None), "A;B;");
}

/// A fleet of another release of the operator, as the API server has it.
fn older_fleet(annotations: &Value) -> Found {
    let env = json!([{"name": "OLD", "value": "1"}, {"name": "PORTLANE_ROOTS", "value": "A;"}]);
    let pod = json!({"containers": [{"name": "proxy", "image": "proxy:1", "env": env}], "dnsPolicy": "ClusterFirst"});
    let template = json!({"metadata": {"creationTimestamp": null, "labels": {"a": "b"}}, "spec": pod});
    let mut deployment = object(ChildKind::Deployment, "uid-edge", &json!({"replicas": 2, "template": template}));
    deployment.metadata.annotations = serde_json::from_value(annotations.clone()).expect("annotations");
    Found::from([(ChildKind::Deployment, deployment)])
}

#[test]
fn a_fleet_that_keeps_its_pods_keeps_all_of_its_pod_template_but_not_its_replicas() {
    let kept = Desired { keeps_pods: true, ..desired(&json!({"replicas": 7, "drainSeconds": 9})) };
    let marks = json!({INSTALLATION_REVISION: "old", GATEWAY_REVISION: "own"});
    let planned = plan(&kept, &older_fleet(&marks));
    assert_eq!(order(&planned), CHILDREN.map(|kind| (kind, NAME)), "the other children are as desired");
    let manifest = &manifests(&planned, ChildKind::Deployment)[0];
    assert_eq!((&manifest["spec"]["replicas"], &manifest["metadata"]["annotations"]), (&json!(7), &marks));
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"dnsPolicy": "ClusterFirst", "containers": [{
        "name": "proxy", "image": "proxy:1",
        "env": [{"name": "OLD", "value": "1"}, {"name": "PORTLANE_ROOTS", "value": "A;"}],
    }]}});
    assert_eq!(manifest["spec"]["template"], template);
}

#[test]
fn a_fleet_that_keeps_its_pods_gets_a_certificate_that_it_needs() {
    let mut kept = Desired { keeps_pods: true, ..desired(&json!({})) };
    kept.trusted = Trusted { bundle: "B;C;".to_owned(), signing: "B;".to_owned(), since: 0 };
    let planned = plan(&kept, &older_fleet(&json!(null)));
    let manifest = &manifests(&planned, ChildKind::Deployment)[0];
    let env = &manifest["spec"]["template"]["spec"]["containers"][0]["env"];
    assert_eq!(env, &json!([{"name": "OLD", "value": "1"}, {"name": "PORTLANE_ROOTS", "value": "B;C;"}]));
}

#[test]
fn the_deployment_says_what_its_pods_are_made_of() {
    let marks = |desired: &Desired, found: &Found| {
        manifests(&plan(desired, found), ChildKind::Deployment)[0]["metadata"]["annotations"].clone()
    };
    let current = desired(&json!({}));
    let made = revision(&current.gateway, &current.fleets);
    let both = json!({INSTALLATION_REVISION: made.installation, GATEWAY_REVISION: made.gateway});
    assert_eq!(marks(&current, &Found::new()), both);
    assert_eq!(marks(&current, &older_fleet(&json!({INSTALLATION_REVISION: "old"}))), both);
    // The pods of a fleet that is older than the annotations belong to an unknown installation.
    let kept = Desired { keeps_pods: true, ..current };
    assert_eq!(marks(&kept, &older_fleet(&json!(null))), json!({GATEWAY_REVISION: made.gateway}));
    assert_eq!(marks(&kept, &Found::new()), both, "a new fleet has nothing to keep");
}

#[test]
fn a_gateway_with_claims_has_a_stateful_set_instead_of_a_deployment() {
    let claim = json!({"volumeClaim": {"size": "1Gi"}});
    let scaled = json!({"minReplicas": 3, "maxReplicas": 9, "targetConnectionsPerPod": 5});
    let desired = desired(&json!({"durability": claim, "autoscaling": scaled}));
    let foreign = found("uid-other", &[ChildKind::Deployment]);
    let made = plan(&desired, &foreign);
    let kinds = CHILDREN.map(|kind| if kind == ChildKind::Deployment { ChildKind::StatefulSet } else { kind });
    assert_eq!(order(&made), kinds.map(|kind| (kind, NAME)));
    let manifest = &manifests(&made, ChildKind::StatefulSet)[0];
    assert_eq!((&manifest["spec"]["replicas"], &manifest["apiVersion"]), (&json!(3), &json!("apps/v1")));
    assert!(ChildKind::of_gateway(&desired.gateway).eq(kinds), "no other kind is read");
    let annotations = manifest["metadata"]["annotations"].as_object().expect("annotations");
    assert!(annotations.contains_key(INSTALLATION_REVISION) && annotations.contains_key(GATEWAY_REVISION));
    let taken = plan(&desired, &found("uid-other", &[ChildKind::StatefulSet]));
    assert_eq!((taken.steps.len(), taken.taken.map(|taken| taken.kind)), (0, Some(ChildKind::StatefulSet)));
}
