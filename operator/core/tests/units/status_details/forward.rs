//! Statuses of forwards in special situations.

use crate::scene::{Scene, forward, gateway, key, web};
use crds::{DataPlaneStatus, PortForwardStatus};
use operator_core::{Moment, same_but_for_counts, status, status::patch::has_claims, world::watched::Kind};
use proxy_api::Delivery;
use serde_json::json;

use super::{NINE, condition, sidecars, sum};

/// The status of a forward as it is written now.
fn status_of(scene: &Scene, name: &str, outstanding_seconds: u64) -> PortForwardStatus {
    let verdict = scene.translator.verdict(&(&key(name)).into()).expect("a verdict");
    let has_claims = has_claims(verdict, &scene.cache);
    let moment = Moment { now: "now".to_owned(), outstanding_seconds, has_claims, ..Moment::default() };
    status(&scene.forward(name), verdict, &sum(scene, name), &moment)
}

/// Status and reason of a condition; empty if it is absent.
fn condition_of(status: &PortForwardStatus, type_: &str) -> (String, String) {
    let found = status.conditions.iter().find(|condition| condition.type_ == type_);
    found.map(|found| (found.status.clone(), found.reason.clone())).unwrap_or_default()
}

fn pair(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

fn write(scene: &mut Scene, name: &str, status: PortForwardStatus) {
    scene.edit(name, |forward| forward.status = Some(status));
}

#[test]
fn a_forward_stays_pending_until_its_proxies_have_reported() {
    let mut scene = Scene::with_web();
    for seconds in [0, 10, 29] {
        let status = status_of(&scene, "web", seconds);
        assert_eq!(condition_of(&status, "Programmed"), pair("Unknown", "Pending"));
        write(&mut scene, "web", status);
    }
}

#[test]
fn a_forward_that_was_suspended_has_to_be_programmed_again() {
    let mut scene = Scene::with_web();
    scene.edit("web", |forward| forward.spec.suspend = Some(true));
    let status = status_of(&scene, "web", 0);
    assert_eq!(
        (condition_of(&status, "Programmed"), condition_of(&status, "Ready")),
        (pair("True", "Suspended"), pair("True", "Suspended"))
    );
    write(&mut scene, "web", status);
    scene.edit("web", |forward| forward.spec.suspend = None);
    assert_eq!(condition_of(&status_of(&scene, "web", 0), "Programmed"), pair("Unknown", "Pending"));
}

#[test]
fn a_port_that_was_chosen_is_published_after_it_stands_in_status() {
    let mut scene = Scene::with_web();
    scene.edit("web", |forward| forward.spec.listeners[0].port = None);
    let chosen = status_of(&scene, "web", 0);
    assert_eq!(condition_of(&chosen, "Programmed"), pair("Unknown", "Allocating"));
    let port = chosen.listeners[0].port;
    assert!((20_000..30_000).contains(&port), "{port}");
    write(&mut scene, "web", chosen);
    let published = status_of(&scene, "web", 0);
    assert_eq!(
        (condition_of(&published, "Programmed"), published.listeners[0].port),
        (pair("Unknown", "Pending"), port)
    );
}

#[test]
fn a_forward_none_of_whose_pods_has_a_proxy_says_so() {
    let none = status_of(&sidecars(&[], &["a", "b"]), "web", 0);
    assert_eq!(
        (condition_of(&none, "Programmed"), condition_of(&none, "Injected")),
        (pair("True", "NoSidecars"), pair("False", "NotInjected"))
    );
    let some = status_of(&sidecars(&["a"], &["b"]), "web", 0);
    assert_eq!(
        (condition_of(&some, "Programmed"), condition_of(&some, "Injected")),
        (pair("Unknown", "Pending"), pair("False", "NotInjected"))
    );
    assert_eq!(
        condition_of(&status_of(&Scene::with_web(), "web", 0), "Injected"),
        pair("", ""),
        "a gateway injects nothing"
    );
}

#[test]
fn messages_of_a_gateway_with_claims_survive_its_pods() {
    let mut scene = Scene::with_web();
    let durable = serde_json::from_value(json!({"send": {"relp": {}}})).expect("a durable part");
    scene.edit("web", |forward| forward.spec.listeners[0].durable = Some(durable));
    assert_eq!(condition_of(&status_of(&scene, "web", 0), "MessagesKept"), pair("True", "InPod"));
    scene.see(gateway(&json!({"durability": {"volumeClaim": {"size": "1Gi"}}})));
    assert_eq!(condition_of(&status_of(&scene, "web", 0), "MessagesKept"), pair("True", "OnClaim"));
}

/// What `MessagesKept` says of a forward whose messages are sent in these ways, and kept in these stores.
fn kept(scene: &mut Scene, parts: &[(serde_json::Value, &serde_json::Value)]) -> String {
    let listener = scene.forward("web").spec.listeners[0].clone();
    let listeners = parts.iter().zip(1_u16..).map(|((send, store), number)| {
        let durable = serde_json::from_value(json!({"send": send, "store": store})).expect("a durable part");
        let (name, port) = (format!("l{number}"), Some(7000 + number));
        crds::Listener { name, port, durable: Some(durable), ..listener.clone() }
    });
    let listeners: Vec<_> = listeners.collect();
    scene.edit("web", |forward| forward.spec.listeners = listeners);
    let status = status_of(scene, "web", 0);
    let found = status.conditions.into_iter().find(|condition| condition.type_ == "MessagesKept");
    found.expect("the condition").message
}

#[test]
fn messages_that_are_kept_have_the_promises_of_their_sinks_and_no_others() {
    let mut scene = Scene::with_web();
    let disk = json!({"disk": {"maxBytes": 16_777_216}});
    let ways = [
        ("relp", "over RELP they are delivered at least once"),
        ("http", "over HTTP they are delivered at least once"),
        ("tcp", "over TCP they are acknowledged by the receiver's kernel"),
        ("udp", "over UDP they are sent: nothing acknowledges them"),
    ];
    for (way, promise) in ways {
        let told = kept(&mut scene, &[(json!({ way: {} }), &disk)]);
        assert!(told.starts_with("messages of durable listeners are kept in an emptyDir volume"), "{told}");
        let others = ways.iter().filter(|(other, promise)| *other != way && told.contains(promise)).count();
        assert!(told.contains(promise) && others == 0, "{way}: {told}");
        assert!(told.contains("those of one source in order"), "{told}");
        assert!(!told.contains("store.jetStream"), "no listener has a stream: {told}");
    }
    let told = kept(&mut scene, &[(json!({"udp": {}}), &disk), (json!({"relp": {}}), &disk)]);
    let at = |promise: &str| told.find(promise).unwrap_or_else(|| panic!("{told}"));
    assert!(at(ways[0].1) < at(ways[3].1), "the strongest one first: {told}");
    scene.see(gateway(&json!({"jetStream": {"url": "nats://nats:4222"}})));
    let stream = json!({"jetStream": {"maxBytes": 16_777_216}});
    let told = kept(&mut scene, &[(json!({"relp": {}}), &stream)]);
    assert!(told.starts_with("messages of durable listeners are kept in streams"), "{told}");
    assert!(told.contains("of the last 2 minutes, or of the sync_interval of the servers"), "{told}");
    let told = kept(&mut scene, &[(json!({"relp": {}}), &disk), (json!({"relp": {}}), &stream)]);
    assert!(told.starts_with("messages of durable listeners are kept in an emptyDir volume"), "{told}");
    assert!(told.contains("; those of listeners with store.jetStream are kept in streams"), "{told}");
}

#[test]
fn messages_in_a_stream_of_the_gateway_survive_its_pods_and_its_claims() {
    let mut scene = Scene::with_web();
    scene.see(gateway(&json!({"jetStream": {"url": "nats://nats:4222"}})));
    let store = json!({"jetStream": {"maxBytes": 16_777_216}});
    let durable = serde_json::from_value(json!({"send": {"relp": {}}, "store": store})).expect("a durable part");
    scene.edit("web", |forward| forward.spec.listeners[0].durable = Some(durable));
    assert_eq!(condition_of(&status_of(&scene, "web", 0), "MessagesKept"), pair("True", "InStream"));
    scene.see(gateway(&json!({})));
    assert_eq!(condition_of(&status_of(&scene, "web", 0), "Accepted"), pair("False", "NotAllowedByGateway"));
}

#[test]
fn a_durable_listener_delivers_as_the_worst_of_its_proxies_and_says_what_its_log_survives() {
    let mut scene = sidecars(&["a", "b"], &[]);
    assert_eq!(condition_of(&status_of(&scene, "web", 0), "MessagesKept"), pair("", ""));
    let durable = serde_json::from_value(json!({"send": {"relp": {}}})).expect("a durable part");
    scene.edit("web", |forward| forward.spec.listeners[0].durable = Some(durable));
    scene.report("a", &[]);
    scene.report("b", &[]);
    let unknown = status_of(&scene, "web", 0);
    assert_eq!((condition_of(&unknown, "MessagesKept"), unknown.listeners[0].delivery), (pair("True", "InPod"), None));
    assert_eq!(condition_of(&unknown, "Ready"), pair("True", "Ready"));
    for (pod, delivery, worst) in [
        ("a", Delivery::Flowing, crds::Delivery::Flowing),
        ("b", Delivery::Stalled, crds::Delivery::Stalled),
        ("a", Delivery::Behind, crds::Delivery::Stalled),
        ("a", Delivery::StoreFailed, crds::Delivery::StoreFailed),
        ("b", Delivery::Full, crds::Delivery::StoreFailed),
        ("a", Delivery::Unknown, crds::Delivery::Full),
    ] {
        scene.deliver(pod, delivery);
        let now = status_of(&scene, "web", 0);
        assert_eq!(now.listeners[0].delivery, Some(worst), "{pod} {delivery:?}");
        assert!(same_but_for_counts(&unknown, &now), "it is no transition");
    }
}

#[test]
fn a_message_says_that_not_every_late_pod_is_named() {
    let message = |pods: &[&str]| {
        let status = status_of(&sidecars(pods, &[]), "web", 30);
        assert_eq!(condition_of(&status, "Programmed"), pair("False", "ReportTimeout"));
        let mut conditions = status.conditions.into_iter();
        conditions.find(|condition| condition.type_ == "Programmed").expect("there").message
    };
    assert!(message(&NINE).contains('…') && !message(&NINE[..7]).contains('…'));
}

#[test]
fn listeners_with_names_and_ranges_are_held_as_such() {
    let mut scene = Scene::with_web();
    let mut manifest = web("web", 80, 1);
    let backend = json!([{"address": {"host": "192.0.2.1", "port": 1}}]);
    manifest["spec"]["listeners"] = json!([
        {"name": "t", "protocol": "TLS", "port": 443, "tls": {"hostnames": ["a.example"]}, "backends": backend},
        {"name": "r", "protocol": "UDP", "port": 5000, "endPort": 5003, "backends": backend},
    ]);
    scene.see(forward(manifest));
    let status = status_of(&scene, "web", 0);
    assert_eq!(status.listeners[0].protocol, crds::Protocol::Tls);
    assert_eq!(status.ports.as_deref(), Some("443/TLS,5000-5003/UDP"));
    assert_eq!(status.to.as_deref(), Some("192.0.2.1:1"), "the same destination is listed once");
}

#[test]
fn a_sidecar_forward_with_pods_holds_its_port_and_one_without_pods_what_it_held() {
    let held = |status: &PortForwardStatus| status.listeners.iter().map(|it| it.port).collect::<Vec<u16>>();
    let mut scene = sidecars(&["a"], &[]);
    let mut with_pods = status_of(&scene, "web", 0);
    assert_eq!((held(&with_pods), with_pods.ports.as_deref()), (vec![80], Some("80/TCP")));
    with_pods.listeners[0].backends = Some(crds::BackendHealth::None);
    with_pods.listeners[0].delivery = Some(crds::Delivery::Full);
    write(&mut scene, "web", with_pods);
    scene.gone(Kind::Pods, "a");
    let without_pods = status_of(&scene, "web", 0);
    assert_eq!(held(&without_pods), [80], "no forward could have won the port");
    let listener = &without_pods.listeners[0];
    assert_eq!((listener.backends, listener.delivery), (None, None), "no proxy says anything");
    scene.edit("web", |forward| forward.spec.listeners[0].port = Some(81));
    assert!(held(&status_of(&scene, "web", 0)).is_empty(), "another port is for the pods to come");
}

#[test]
fn a_forward_keeps_its_port_while_its_gateway_is_missing_and_not_once_it_is_refused() {
    let mut scene = Scene::with_web();
    let status = status_of(&scene, "web", 0);
    write(&mut scene, "web", status);
    scene.gone(Kind::Gateways, "edge");
    let missing = status_of(&scene, "web", 0);
    assert_eq!((condition_of(&missing, "Accepted"), missing.listeners.len()), (pair("False", "GatewayNotFound"), 1));
    assert_eq!(
        (condition_of(&missing, "Stalled"), condition_of(&missing, "Programmed")),
        (pair("", ""), pair("False", "NotAccepted"))
    );
    scene.see(gateway(&json!({"allowedForwards": {"ports": [{"protocol": "TCP", "port": 9000}]}})));
    let refused = status_of(&scene, "web", 0);
    assert_eq!(
        (condition_of(&refused, "Accepted"), refused.listeners.len()),
        (pair("False", "NotAllowedByGateway"), 0)
    );
    assert_eq!(condition_of(&refused, "Stalled"), pair("True", "NotAllowedByGateway"));
}

#[test]
fn the_status_names_the_placement_and_keeps_it_while_the_gateway_is_missing() {
    let mut scene = Scene::with_web();
    let status = status_of(&scene, "web", 0);
    assert_eq!(status.placement.as_deref(), Some("gateway ns/edge"));
    write(&mut scene, "web", status);
    scene.gone(Kind::Gateways, "edge");
    assert_eq!(status_of(&scene, "web", 0).placement.as_deref(), Some("gateway ns/edge"));
}

#[test]
fn an_object_that_cannot_be_read_is_stalled_and_not_reconciling() {
    let mut scene = Scene::with_web();
    scene.see(crate::scene::unreadable_forward("newer", 2));
    let status = status_of(&scene, "newer", 0);
    assert_eq!(
        (condition_of(&status, "Programmed"), condition_of(&status, "Stalled")),
        (pair("Unknown", "Unsupported"), pair("True", "Unsupported"))
    );
    assert_eq!(condition_of(&status, "Reconciling"), pair("", ""));
}

#[test]
fn the_names_of_pods_are_no_transition_and_another_message_is() {
    let plain = PortForwardStatus {
        conditions: vec![condition("Injected", "a"), condition("Ready", "a")],
        ..PortForwardStatus::default()
    };
    let with = |at: usize, message: &str| {
        let mut other = plain.clone();
        other.conditions[at].message = message.to_owned();
        other
    };
    assert!(same_but_for_counts(&plain, &with(0, "b")));
    assert!(!same_but_for_counts(&plain, &with(1, "b")));
    let counted = PortForwardStatus { data_plane: Some(DataPlaneStatus::default()), ..plain.clone() };
    assert!(same_but_for_counts(&plain, &counted));
    assert!(!same_but_for_counts(&plain, &PortForwardStatus { ports: Some("80/TCP".to_owned()), ..plain.clone() }));
}
