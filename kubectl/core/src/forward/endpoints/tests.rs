//! Scenes of Services, slices and pods, and the endpoints that come of them.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

fn target(text: &str) -> Target {
    text.parse().expect("a target")
}

fn number(number: u16) -> Remote {
    Remote::Number(number)
}

fn name(name: &str) -> Remote {
    Remote::Name(name.to_owned())
}

fn service() -> Service {
    object(json!({"spec": {"ports": [
        {"name": "pg", "port": 5432, "targetPort": "db", "protocol": "TCP"},
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        {"name": "ntp", "port": 123, "protocol": "UDP"},
    ]}}))
}

fn slice(port: u16, endpoints: &Value) -> EndpointSlice {
    object(json!({
        "metadata": {}, "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "dns", "port": 1053, "protocol": "UDP"}, {"name": "pg", "port": port, "protocol": "TCP"}],
    }))
}

fn endpoint(pod: &str, conditions: &Value) -> Value {
    json!({
        "addresses": ["10.0.0.1"], "conditions": conditions,
        "targetRef": {"kind": "Pod", "name": pod, "uid": format!("uid-{pod}")},
    })
}

fn found(endpoints: &[Endpoint]) -> Vec<(&str, u16, bool)> {
    endpoints.iter().map(|it| (it.pod.name.as_str(), it.port, it.is_ready)).collect()
}

#[test]
fn endpoints_have_the_port_of_their_slice() {
    // During a rollout that changes a named port, old and new pods are in different slices.
    let ready = json!({"ready": true});
    let slices = [
        slice(5432, &json!([endpoint("a", &ready), endpoint("b", &json!({"ready": false}))])),
        slice(5433, &json!([endpoint("c", &json!({})), endpoint("d", &json!({"ready": true, "terminating": true}))])),
        slice(5432, &json!([endpoint("b", &ready)])),
    ];
    let expected = [("a", 5432, true), ("b", 5432, true), ("c", 5433, true), ("d", 5433, false)];
    for wanted in [number(5432), name("pg")] {
        let endpoints = of_service(&target("svc/db"), &service(), &slices, &wanted).expect("endpoints");
        assert_eq!(found(&endpoints), expected);
    }
}

#[test]
fn a_port_of_both_protocols_is_tcp_and_a_udp_port_is_refused() {
    let why = |wanted: &Remote| service_port(&target("svc/db"), &service(), wanted).expect_err("refused").to_string();
    let own = service();
    let port = service_port(&target("svc/db"), &own, &number(53)).expect("a port").expect("declared");
    assert_eq!(port.name.as_deref(), Some("dns-tcp"));
    assert_eq!(why(&number(123)), "port 123 of svc/db is not TCP, and the API server forwards TCP only");
    assert_eq!(why(&name("ntp")), "port ntp of svc/db is not TCP, and the API server forwards TCP only");
    assert_eq!(why(&number(80)), "svc/db has no TCP port 80: it has 5432 (pg), 53 (dns-tcp)");
    assert_eq!(why(&Remote::Only), "svc/db has more than one TCP port: name one of 5432 (pg), 53 (dns-tcp)");
}

#[test]
fn a_service_without_pods_by_its_kind_is_refused() {
    let external = object(json!({"spec": {"type": "ExternalName", "externalName": "db.example.com"}}));
    let why = of_service(&target("svc/db"), &external, &[], &number(80)).expect_err("refused").to_string();
    assert!(why.contains("connect to db.example.com"), "{why}");
    let outside = slice(5432, &json!([{"addresses": ["192.0.2.1"]}]));
    let refused = of_service(&target("svc/db"), &service(), [&outside], &number(5432));
    assert_eq!(refused, Err(Unresolved::NotPods(target("svc/db"))));
}

#[test]
fn a_headless_service_without_ports_takes_the_number_of_the_pods() {
    let headless = object(json!({"spec": {"clusterIP": "None"}}));
    let slice: EndpointSlice = object(json!({
        "metadata": {}, "addressType": "IPv4", "endpoints": [endpoint("a", &json!({}))],
    }));
    let endpoints = of_service(&target("svc/db"), &headless, [&slice], &number(80)).expect("endpoints");
    assert_eq!(found(&endpoints), [("a", 80, true)]);
    of_service(&target("svc/db"), &headless, [&slice], &name("pg")).expect_err("there is no name");
}

fn pod(name: &str, port: u16, status: &Value) -> Pod {
    object(json!({
        "metadata": {"name": name, "uid": format!("uid-{name}")},
        "spec": {"containers": [{"name": "c", "ports": [
            {"containerPort": port, "name": "pg"}, {"containerPort": 53, "protocol": "UDP"},
        ]}]},
        "status": status,
    }))
}

#[test]
fn pods_have_ports_by_number_or_by_name() {
    let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    let pods = [
        pod("a", 5432, &ready),
        pod("b", 5433, &json!({"phase": "Running"})),
        pod("c", 5432, &json!({"phase": "Failed"})),
    ];
    let of = |wanted: &Remote, takes| of_pods(&target("deploy/db"), &pods, wanted, takes);
    let endpoints = of(&name("pg"), Takes::Ready).expect("endpoints");
    assert_eq!(found(&endpoints), [("a", 5432, true), ("b", 5433, false)]);
    let endpoints = of(&number(8080), Takes::Running).expect("endpoints");
    assert_eq!(found(&endpoints), [("a", 8080, true), ("b", 8080, true)]);
    assert!(matches!(of(&number(53), Takes::Ready), Err(Unresolved::NotTcp { .. })));
    assert!(matches!(of(&name("web"), Takes::Ready), Err(Unresolved::NoPort { .. })));
    assert_eq!(of_pods(&target("deploy/db"), [], &name("web"), Takes::Ready), Ok(Vec::new()));
}

#[test]
fn a_pod_that_is_being_deleted_takes_no_new_connections() {
    let mut ending = pod("a", 80, &json!({"phase": "Running"}));
    let now = json!("2026-01-01T00:00:00Z");
    ending.metadata.deletion_timestamp = Some(object(now));
    let endpoints = of_pods(&target("pod/a"), [&ending], &number(80), Takes::Running).expect("endpoints");
    assert_eq!(found(&endpoints), [("a", 80, false)]);
}

#[test]
fn a_service_without_pods_yet_is_no_mistake_and_its_pods_count_beside_other_addresses() {
    let of = |slices: &[EndpointSlice]| of_service(&target("svc/db"), &service(), slices, &number(5432));
    assert_eq!(of(&[]), Ok(Vec::new()));
    let mixed = slice(5432, &json!([{"addresses": ["192.0.2.1"]}, endpoint("a", &json!({}))]));
    assert_eq!(found(&of(&[mixed]).expect("endpoints")), [("a", 5432, true)]);
}

#[test]
fn a_pod_that_is_ready_in_both_families_is_ready() {
    let of_family = || slice(5432, &json!([endpoint("a", &json!({"ready": true}))]));
    let both = [of_family(), of_family()];
    let endpoints = of_service(&target("svc/db"), &service(), &both, &name("pg")).expect("endpoints");
    assert_eq!(found(&endpoints), [("a", 5432, true)]);
}

#[test]
fn the_only_tcp_port_needs_no_name() {
    let ports = json!([{"name": "pg", "port": 5432}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    let service: Service = object(json!({"spec": {"ports": ports}}));
    let port = service_port(&target("svc/db"), &service, &Remote::Only).expect("a port").expect("declared");
    assert_eq!(port.port, 5432);
}

#[test]
fn of_pods_that_get_a_port_by_a_rollout_those_that_have_it_are_used() {
    let running = json!({"phase": "Running"});
    let old = json!({"metadata": {"name": "old"}, "spec": {"containers": [{"name": "c"}]}, "status": running});
    let pods = [pod("new", 5432, &running), object(old)];
    let endpoints = of_pods(&target("deploy/db"), &pods, &name("pg"), Takes::Running).expect("endpoints");
    assert_eq!(found(&endpoints), [("new", 5432, true)]);
}

#[test]
fn no_other_condition_makes_a_pod_ready() {
    let conditions = json!([{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "False"}]);
    let early = pod("a", 80, &json!({"phase": "Running", "conditions": conditions}));
    let endpoints = of_pods(&target("pod/a"), [&early], &number(80), Takes::Ready).expect("endpoints");
    assert_eq!(found(&endpoints), [("a", 80, false)]);
}
