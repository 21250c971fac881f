//! Which changes become Events, about which object, and which do not.

use std::collections::BTreeMap;

use crds::{BackendHealth, Condition, Delivery, ListenerStatus, PortForward, PortForwardSpec, Protocol};
use k8s_openapi::api::core::v1::ObjectReference;
use operator_core::{
    Grown, Subject,
    status::events::{Happened, of_agent, of_backends, of_cut, of_deliveries, of_growth, of_ready, reference},
    world::{objects::Object, watched::Kind},
};
use serde_json::{Value, json};

use crate::scene::{Scene, app_pod, forward, key, side, web};

/// The object of the events.
fn object() -> ObjectReference {
    let forward: PortForward = serde_json::from_value(web("web", 80, 1)).expect("a forward");
    reference("PortForward", &forward.metadata)
}

fn condition(type_: &str, status: &str, reason: &str) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        observed_generation: Some(1),
        last_transition_time: crate::scene::NOW.to_owned(),
        reason: reason.to_owned(),
        message: format!("because of {reason}"),
    }
}

/// Conditions of a forward whose `Ready` says this.
fn ready(status: &str, reason: &str) -> Vec<Condition> {
    vec![condition("Accepted", "True", "Accepted"), condition("Ready", status, reason)]
}

fn change(old: &[Condition], new: &[Condition]) -> Option<Happened> {
    of_ready(&object(), old, new, &mut None)
}

#[test]
fn a_forward_that_becomes_ready_or_unready_is_an_event() {
    let event = change(&ready("Unknown", "Pending"), &ready("True", "Ready")).expect("an event");
    assert_eq!((event.warning, event.reason.as_str(), event.note.as_str()), (false, "Ready", "because of Ready"));
    let event = change(&ready("True", "Ready"), &ready("False", "BackendNotFound")).expect("an event");
    assert_eq!((event.warning, event.reason.as_str()), (true, "BackendNotFound"));
    assert_eq!(event.listener(), None, "all of the forward is concerned");
    let object = event.object;
    assert_eq!(
        (object.api_version.as_deref(), object.kind.as_deref()),
        (Some("portlane.dev/v1alpha1"), Some("PortForward"))
    );
    assert_eq!((object.namespace.as_deref(), object.name.as_deref()), (Some("ns"), Some("web")));
    assert_eq!((object.uid.as_deref(), object.resource_version.as_deref()), (Some("uid-web"), Some("1")));
}

#[test]
fn another_reason_or_another_status_is_an_event_and_the_same_is_none() {
    let conflict = ready("False", "PortConflict");
    assert!(change(&conflict, &ready("False", "Invalid")).is_some());
    assert!(change(&ready("True", "Same"), &ready("False", "Same")).is_some());
    assert!(change(&conflict, &conflict).is_none());
}

#[test]
fn what_is_not_known_yet_is_no_event() {
    assert!(change(&ready("True", "Ready"), &ready("Unknown", "Pending")).is_none());
    assert!(change(&[], &ready("Unknown", "Pending")).is_none());
    assert!(change(&ready("True", "Ready"), &[condition("Accepted", "False", "Invalid")]).is_none());
}

#[test]
fn what_a_new_forward_lacks_may_be_on_its_way_and_a_mistake_is_not() {
    for reason in ["GatewayNotFound", "BackendNotFound", "RefNotPermitted", "NoProxies"] {
        assert!(change(&[], &ready("False", reason)).is_none(), "{reason}");
        assert!(change(&ready("True", "Ready"), &ready("False", reason)).is_some(), "{reason}");
    }
    assert!(change(&[], &ready("False", "Invalid")).is_some());
    assert!(change(&[], &ready("True", "Ready")).is_some());
}

#[test]
fn a_status_that_is_written_again_is_no_second_event() {
    let mut reported = None;
    let mut change = |status, reason| of_ready(&object(), &[], &ready(status, reason), &mut reported).is_some();
    assert!(change("True", "Ready"));
    assert!(!change("True", "Ready"), "the first write has failed");
    assert!(change("False", "Rejected") && !change("False", "Rejected"));
    assert!(change("True", "Ready"));
}

fn listener(name: &str, backends: Option<BackendHealth>) -> ListenerStatus {
    ListenerStatus {
        name: name.to_owned(),
        protocol: Protocol::Tcp,
        port: 80,
        end_port: None,
        hostnames: Vec::new(),
        proxy_protocol: None,
        backends,
        delivery: None,
    }
}

#[test]
fn backends_that_become_unhealthy_are_a_warning_and_healthy_ones_are_not() {
    let mut reported = BTreeMap::new();
    let mut is = |health: Option<BackendHealth>| -> Vec<(bool, String)> {
        let events = of_backends(&object(), &[], &[listener("a", health)], &mut reported);
        assert!(events.iter().all(|event| event.note.contains("'a'") && event.object.name.as_deref() == Some("web")));
        let path = |event: &Happened| event.object.field_path.clone();
        assert!(events.iter().all(|event| path(event).as_deref() == Some("spec.listeners{a}")));
        assert!(events.iter().all(|event| event.listener() == Some("a")));
        events.into_iter().map(|event| (event.warning, event.reason)).collect()
    };
    let (worse, better) = ((true, "BackendsUnhealthy".to_owned()), (false, "BackendsHealthy".to_owned()));
    assert!(is(None).is_empty(), "no proxy has reported");
    assert!(is(Some(BackendHealth::All)).is_empty(), "as it should be");
    assert_eq!(is(Some(BackendHealth::Some)), std::slice::from_ref(&worse));
    assert!(is(Some(BackendHealth::Some)).is_empty() && is(None).is_empty());
    assert!(is(Some(BackendHealth::Some)).is_empty(), "what was reported before the gap counts");
    assert_eq!(is(Some(BackendHealth::None)), [worse]);
    assert_eq!(is(Some(BackendHealth::Some)), std::slice::from_ref(&better));
    assert_eq!(is(Some(BackendHealth::All)), [better]);
}

#[test]
fn backends_that_were_always_healthy_are_not_remembered() {
    let mut reported = BTreeMap::new();
    let mut count = |health| of_backends(&object(), &[], &[listener("a", Some(health))], &mut reported).len();
    for _ in 0..2 {
        assert_eq!(count(BackendHealth::All), 0);
    }
    assert_eq!(count(BackendHealth::None), 1);
    assert_eq!(reported, BTreeMap::from([("a".to_owned(), BackendHealth::None)]));
}

#[test]
fn a_new_leader_knows_the_health_of_backends_by_the_status_of_that_listener() {
    let old = [listener("b", Some(BackendHealth::All)), listener("a", Some(BackendHealth::None))];
    let events = |health| of_backends(&object(), &old, &[listener("a", Some(health))], &mut BTreeMap::new());
    assert!(events(BackendHealth::None).is_empty());
    assert_eq!(events(BackendHealth::All)[0].reason, "BackendsHealthy");
}

/// A forward whose listener `a` keeps its messages there.
fn spec(store: &Value) -> PortForwardSpec {
    let mut forward: PortForward = serde_json::from_value(web("web", 80, 1)).expect("a forward");
    let durable = json!({"send": {"relp": {}}, "store": store});
    forward.spec.listeners[0].durable = Some(serde_json::from_value(durable).expect("a durable part"));
    forward.spec
}

#[test]
fn a_store_that_fails_is_the_disk_or_the_server_with_what_helps_there() {
    let failed = [ListenerStatus { delivery: Some(Delivery::StoreFailed), ..listener("a", None) }];
    let note = |store: Value| {
        let events = of_deliveries(&object(), &spec(&store), &[], &failed, &mut BTreeMap::new());
        assert_eq!(events.len(), 1);
        events[0].note.clone()
    };
    let (disk, stream) =
        (note(json!({"disk": {"maxBytes": 16_777_216}})), note(json!({"jetStream": {"maxBytes": 16_777_216}})));
    assert!(disk.contains("the disk fails") && disk.contains("free space"), "{disk}");
    assert!(stream.contains("the NATS server fails") && stream.contains("correct its credentials"), "{stream}");
    assert!(!disk.contains("NATS") && !stream.contains("disk"), "{disk}; {stream}");
}

#[test]
fn a_durable_listener_that_delivers_worse_is_a_warning_and_better_is_not() {
    let durable = |delivery: Option<Delivery>| ListenerStatus { delivery, ..listener("a", None) };
    let (spec, mut reported) = (spec(&json!({"disk": {"maxBytes": 16_777_216}})), BTreeMap::new());
    let mut is = |delivery: Option<Delivery>| -> Vec<(bool, String)> {
        let events = of_deliveries(&object(), &spec, &[], &[durable(delivery)], &mut reported);
        assert!(events.iter().all(|event| event.listener() == Some("a") && event.note.contains("'a'")));
        events.into_iter().map(|event| (event.warning, event.reason)).collect()
    };
    let event = |warning: bool, reason: &str| [(warning, reason.to_owned())];
    assert!(is(None).is_empty(), "no proxy has reported");
    assert!(is(Some(Delivery::Flowing)).is_empty(), "as it should be");
    assert_eq!(is(Some(Delivery::Stalled)), event(true, "DeliveryStalled"));
    assert!(is(Some(Delivery::Stalled)).is_empty() && is(None).is_empty());
    assert!(is(Some(Delivery::Stalled)).is_empty(), "what was reported before the gap counts");
    assert_eq!(is(Some(Delivery::StoreFailed)), event(true, "DeliveryStoreFailed"));
    assert_eq!(is(Some(Delivery::Full)), event(false, "DeliveryFull"));
    assert_eq!(is(Some(Delivery::Behind)), event(false, "DeliveryBehind"));
    assert_eq!(is(Some(Delivery::Flowing)), event(false, "DeliveryFlowing"));
    let old = [durable(Some(Delivery::Stalled))];
    let next_leader = of_deliveries(&object(), &spec, &old, &[durable(Some(Delivery::Stalled))], &mut BTreeMap::new());
    assert!(next_leader.is_empty(), "the status has it");
}

#[test]
fn sessions_that_were_cut_are_a_warning_about_the_gateway_or_the_pod() {
    let mut scene = Scene::with_web();
    let event = of_cut(&key("p1"), 7, &scene.cache);
    assert!(event.warning && event.note.contains("p1") && event.note.contains('7'), "{}", event.note);
    assert_eq!(event.reason, "DrainCut");
    let object = event.object;
    assert_eq!((object.kind.as_deref(), object.uid.as_deref()), (Some("ForwardGateway"), Some("uid-edge")));
    scene.see(Object::Pod(key("app"), app_pod("app")));
    let object = of_cut(&key("app"), 1, &scene.cache).object;
    assert_eq!((object.api_version.as_deref(), object.kind.as_deref()), (Some("v1"), Some("Pod")));
    assert_eq!((object.namespace.as_deref(), object.name.as_deref()), (Some("ns"), Some("app")));
    assert_eq!(object.uid.as_deref(), Some("uid-app"));
    scene.gone(Kind::Gateways, "edge");
    assert_eq!(of_cut(&key("p1"), 1, &scene.cache).object.kind.as_deref(), Some("Pod"), "its gateway is gone");
}

#[test]
fn an_autoscaler_that_asks_for_more_is_an_event_about_the_object_that_scales() {
    let mut scene = Scene::with_web();
    scene.see(forward(side("app", 81)));
    let growth = |subject: Subject| of_growth(&Grown { subject, from: 2, to: 5 }, &scene.cache);
    let event = growth(Subject::Forward(key("app"))).expect("an event");
    assert_eq!((event.warning, event.reason.as_str()), (false, "ScaledOut"));
    assert!(event.note.contains('2') && event.note.contains('5'), "{}", event.note);
    assert_eq!((event.object.kind.as_deref(), event.object.uid.as_deref()), (Some("PortForward"), Some("uid-app")));
    let event = growth(Subject::Gateway(key("edge"))).expect("an event");
    assert_eq!((event.object.kind.as_deref(), event.object.uid.as_deref()), (Some("ForwardGateway"), Some("uid-edge")));
    assert_eq!(growth(Subject::Gateway(key("app"))), None);
    assert_eq!(growth(Subject::Forward(key("edge"))), None);
}

#[test]
fn warnings_and_growth_are_worth_a_notice() {
    let scene = Scene::with_web();
    let growth = of_growth(&Grown { subject: Subject::Gateway(key("edge")), from: 1, to: 2 }, &scene.cache);
    assert!(growth.expect("an event").is_notable());
    assert!(of_cut(&key("p1"), 1, &scene.cache).is_notable());
    assert!(!change(&[], &ready("True", "Ready")).expect("an event").is_notable());
}

#[test]
fn a_change_of_an_agent_is_an_event_if_somebody_caused_it_or_has_to_act() {
    // Status and reason before, if any; the condition now; whether that is an event.
    let cases = [
        (None, ("Accepted", "True", "Accepted"), false),
        (None, ("Accepted", "True", "Suspended"), true),
        (Some(("True", "Accepted")), ("Accepted", "True", "Accepted"), false),
        (Some(("False", "GatewayNotFound")), ("Accepted", "True", "Accepted"), true),
        (None, ("Accepted", "False", "GatewayNotFound"), false),
        (None, ("Accepted", "False", "NotAllowedByGateway"), true),
        (Some(("True", "Accepted")), ("Accepted", "False", "GatewayNotFound"), true),
        (None, ("Enrolled", "True", "Enrolled"), true),
        (Some(("Unknown", "Pending")), ("Enrolled", "False", "NotEnrolled"), false),
        (Some(("Unknown", "Pending")), ("Enrolled", "False", "EnrolmentFailed"), true),
        (None, ("Connected", "True", "Connected"), true),
        (None, ("Connected", "False", "NotConnected"), false),
        (Some(("Unknown", "Pending")), ("Connected", "False", "NotConnected"), false),
        (Some(("True", "Connected")), ("Connected", "False", "NotConnected"), true),
        (Some(("True", "Connected")), ("Connected", "False", "Suspended"), false),
        (Some(("True", "Connected")), ("Connected", "Unknown", "Pending"), false),
        (Some(("True", "Ready")), ("Ready", "False", "NotConnected"), false),
        (Some(("False", "NotConnected")), ("Ready", "True", "Ready"), false),
    ];
    for (before, (type_, status, reason), is_event) in cases {
        let old: Vec<Condition> = before.iter().map(|(status, reason)| condition(type_, status, reason)).collect();
        let events = of_agent(&object(), &old, &[condition(type_, status, reason)], &mut BTreeMap::new());
        let told: Vec<(bool, &str)> = events.iter().map(|event| (event.warning, event.reason.as_str())).collect();
        let expected: Vec<(bool, &str)> = is_event.then_some((status == "False", reason)).into_iter().collect();
        assert_eq!(told, expected, "{before:?}, then {type_} {status} {reason}");
    }
}
