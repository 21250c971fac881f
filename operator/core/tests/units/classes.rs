//! Objects of another controller class belong to another operator: nothing of them is read, written, claimed or
//! injected.

use std::collections::BTreeMap;

use crds::{ForwardGateway, PortForward};
use operator_core::{
    Group, Touched,
    desired::{
        gateway::{Fleets, children},
        sidecar::{Injection, Sidecar, inject},
    },
    names::{CLASS_LABEL, INJECT_LABEL, PROXY_LABEL},
    world::{child::ChildKind, class, guarded::Guarded, objects::Object, read, watched::Kind},
};
use serde_json::{Value, json};

use crate::scene::{Scene, app_pod, fleet_pod, forward, gateway, key, keys, side, unreadable_gateway, web};

/// A manifest with this controller class; none if empty.
fn of_class(mut manifest: Value, class: &str) -> Value {
    if !class.is_empty() {
        manifest["spec"]["controllerClass"] = json!(class);
    }
    manifest
}

/// The cluster as the operator of this class sees it.
fn seen_by(class: &str) -> Scene {
    let mut scene = Scene::new();
    scene.cache = std::mem::take(&mut scene.cache).of_class(class);
    scene
}

/// Status and message of `Accepted`.
fn accepted(scene: &Scene, name: &str) -> (String, String) {
    let origin = (&key(name)).into();
    let verdict = scene.translator.verdict(&origin).expect("a verdict");
    (verdict.accepted.reason.as_str().to_owned(), verdict.accepted.message.clone())
}

#[test]
fn an_operator_serves_its_class_and_does_not_see_others() {
    for (own, other) in [("", "blue"), ("blue", ""), ("blue", "green")] {
        let mut scene = seen_by(own);
        assert_eq!(scene.see(forward(of_class(web("theirs", 80, 1), other))).touched, Touched::default());
        let theirs = scene.see(gateway(&of_class(json!({"spec": {}}), other)["spec"]));
        assert!(theirs.touched.gateways.is_empty(), "no child and no status of a gateway of another class");
        assert!(scene.cache.gateways().is_empty() && scene.cache.world.forwards.is_empty());
        assert_eq!(scene.cache.scaling().count(), 0);

        scene.see(gateway(&of_class(json!({"spec": {}}), own)["spec"]));
        scene.see(forward(of_class(web("ours", 80, 1), own)));
        scene.see(forward(of_class(web("theirs", 80, 1), other)));
        assert_eq!(accepted(&scene, "ours").0, "Accepted", "the port is claimed by forwards of the class alone");
        let snapshot = scene.translator.snapshot(&Group::Gateway(key("edge"))).expect("the gateway runs it");
        assert_eq!(snapshot.listeners.len(), 1);
    }
}

#[test]
fn a_gateway_of_another_class_is_named_and_its_forward_is_admitted_once_the_classes_agree() {
    let mut scene = seen_by("blue");
    scene.see(gateway(&json!({})));
    scene.see(forward(of_class(web("web", 80, 1), "blue")));
    let (reason, message) = accepted(&scene, "web");
    assert_eq!(reason, "GatewayNotFound");
    assert!(message.contains("has no controller class, and this forward has the controller class 'blue'"), "{message}");
    let gone = scene.gone(Kind::Gateways, "edge").touched;
    assert_eq!((gone.changes.gateways, gone.gateways), (keys(&["edge"]), keys(&[])));
    assert!(accepted(&scene, "web").1.ends_with("does not exist"));
    scene.see(gateway(&json!({"controllerClass": "blue"})));
    assert_eq!(accepted(&scene, "web").0, "Accepted");
}

#[test]
fn an_object_that_is_created_again_in_another_class_is_gone() {
    let mut scene = seen_by("");
    scene.see(gateway(&json!({})));
    scene.see(forward(web("web", 80, 1)));
    let left = scene.see(forward(of_class(web("web", 80, 2), "blue"))).touched;
    assert_eq!((left.changes.forwards, left.forwards), (keys(&["web"]), keys(&["web"])));
    assert!(scene.cache.world.forwards.is_empty());
    let left = scene.see(gateway(&json!({"controllerClass": "blue"}))).touched;
    assert_eq!(left.gateways, keys(&["edge"]));
    assert!(scene.cache.gateways().is_empty());
}

#[test]
fn a_gateway_that_is_created_again_and_cannot_be_read_leaves_its_class_too() {
    let mut scene = seen_by("");
    scene.see(gateway(&json!({"controllerClass": "blue"})));
    scene.see(forward(web("web", 80, 1)));
    assert!(accepted(&scene, "web").1.contains("has the controller class 'blue'"));
    scene.see(unreadable_gateway());
    let (_, message) = accepted(&scene, "web");
    assert!(!message.contains("blue"), "{message}");
}

#[test]
fn an_object_that_cannot_be_read_belongs_to_its_class_all_the_same() {
    let newer = json!({
        "apiVersion": "portlane.dev/v1alpha1", "kind": "PortForward", "metadata": {"name": "web", "namespace": "ns"},
        "spec": {"controllerClass": "blue", "placement": "Anywhere", "listeners": []},
    });
    let guarded: Guarded<PortForward> = serde_json::from_value(newer).expect("guarded");
    assert_eq!((guarded.class.as_str(), guarded.read.is_err()), ("blue", true));
    let object = read::forward(guarded);
    for (own, known) in [("", 0), ("blue", 1)] {
        let mut scene = seen_by(own);
        scene.see(object.clone());
        assert_eq!(scene.cache.world.unreadable.len(), known, "by the operator of class '{own}'");
    }
    let readable: Guarded<ForwardGateway> =
        serde_json::from_value(json!({"metadata": {}, "spec": {}})).expect("guarded");
    assert_eq!((readable.class.as_str(), readable.read.is_ok()), ("", true));
}

#[test]
fn a_pod_with_the_proxy_of_another_class_counts_as_uninjected_and_says_why() {
    let mut scene = seen_by("");
    let mut pod = app_pod("p");
    pod.labels.insert(CLASS_LABEL.to_owned(), "blue".to_owned());
    scene.see(forward(side("web", 80)));
    scene.see(Object::Pod(key("p"), pod.clone()));
    let seen = &scene.cache.world.pods[&key("p")];
    assert!(!seen.carries && seen.problem.as_deref().is_some_and(|why| why.contains("class 'blue'")), "{seen:?}");
    let mut scene = seen_by("blue");
    scene.see(Object::Pod(key("p"), pod));
    assert!(scene.cache.world.pods[&key("p")].carries);
}

#[test]
fn the_watches_of_pods_and_children_leave_out_other_classes() {
    assert_eq!(class::requirement(""), "!portlane.dev/controller-class");
    assert_eq!(class::requirement("blue"), "portlane.dev/controller-class=blue");
}

#[test]
fn children_carry_the_class_and_no_pod_template_removes_it() {
    let template = json!({"labels": {CLASS_LABEL: "mine"}});
    let child = |spec: Value, kind: ChildKind| {
        let gateway: ForwardGateway =
            serde_json::from_value(json!({"metadata": {"name": "edge", "namespace": "ns"}, "spec": spec}))
                .expect("one");
        let all = children(&key("edge"), &gateway, &Fleets::default(), "ROOTS", &[].into());
        all.into_iter().find(|(found, _)| *found == kind).expect("the child").1
    };
    for kind in [ChildKind::ServiceAccount, ChildKind::Deployment, ChildKind::PodDisruptionBudget] {
        let blue = child(json!({"controllerClass": "blue", "podTemplate": template}), kind);
        assert_eq!(blue["metadata"]["labels"][CLASS_LABEL], "blue");
        let plain = child(json!({"podTemplate": template}), kind);
        assert_eq!(plain["metadata"]["labels"].get(CLASS_LABEL), None);
    }
    let labels = |spec: Value| child(spec, ChildKind::Deployment)["spec"]["template"]["metadata"]["labels"].clone();
    assert_eq!(labels(json!({"controllerClass": "blue", "podTemplate": template}))[CLASS_LABEL], "blue");
    assert_eq!(labels(json!({"podTemplate": template})).get(CLASS_LABEL), None);
    // The selector of a Deployment cannot be changed, so the class is no part of it.
    let deployment = child(json!({"controllerClass": "blue"}), ChildKind::Deployment);
    assert_eq!(deployment["spec"]["selector"], json!({"matchLabels": {"portlane.dev/gateway": "edge"}}));
}

#[test]
fn exactly_one_operator_injects_a_pod() {
    let is_for = |own: &str, labels: &[(&str, &str)], selected: bool| {
        let labels: BTreeMap<String, String> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Sidecar { class: own.to_owned(), ..Sidecar::default() }.is_for(&labels, || selected)
    };
    let (asks, refuses, blue) = ((INJECT_LABEL, "enabled"), (INJECT_LABEL, "disabled"), (CLASS_LABEL, "blue"));
    // Labels of the pod, whether a forward of the class selects it, and whether the operator without a class and that
    // of the class `blue` inject it.
    for (labels, selected, plain, of_blue) in [
        (&[asks][..], true, true, false),
        (&[asks, blue], false, false, true),
        (&[refuses, blue], true, false, false),
        (&[], true, true, true),
        (&[], false, false, false),
        (&[blue], true, false, true),
        (&[asks, (PROXY_LABEL, "gateway")], true, false, false),
    ] {
        let injected = (is_for("", labels, selected), is_for("blue", labels, selected));
        assert_eq!(injected, (plain, of_blue), "{labels:?} {selected}");
    }
}

#[test]
fn an_injected_pod_carries_the_class_of_its_operator() {
    let pod = json!({"metadata": {}, "spec": {"serviceAccountName": "default", "containers": [{"name": "app"}]}});
    let labels = |class: &str| {
        let sidecar = Sidecar { class: class.to_owned(), ..Sidecar::default() };
        let Injection::Injected(patch, _) = inject(&pod, &sidecar) else { panic!("the pod gets a proxy") };
        patch.into_iter().find(|step| step["path"] == "/metadata/labels").expect("labels")["value"].clone()
    };
    assert_eq!(labels(""), json!({PROXY_LABEL: "sidecar"}));
    assert_eq!(labels("blue"), json!({PROXY_LABEL: "sidecar", CLASS_LABEL: "blue"}));
}

#[test]
fn a_class_is_the_value_of_a_label() {
    for good in ["", "blue", "a", "0", "team-a", &"a".repeat(63)] {
        assert_eq!(class::parse(good).as_deref(), Ok(good));
    }
    for bad in ["Blue", "-a", "a-", "a.b", "a b", "ü", "example.com/a", &"a".repeat(64)] {
        assert!(class::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_pods_of_a_fleet_are_recognised_within_their_class() {
    let mut scene = seen_by("blue");
    scene.see(gateway(&json!({"controllerClass": "blue"})));
    scene.see(Object::ProxyPod(key("p1"), fleet_pod("p1", true)));
    assert_eq!(scene.cache.gateway_of(&key("p1")), Some(key("edge")));
    scene.see(gateway(&json!({})));
    assert_eq!(scene.cache.gateway_of(&key("p1")), None);
}
