//! The parts of a gateway's children for agents.

use std::collections::BTreeSet;

use crds::ForwardGateway;
use operator_core::{
    ObjectKey,
    desired::gateway::{Fleets, children},
    world::child::ChildKind,
};
use proxy_api::Transport;
use serde_json::{Value, json};

/// A child of a gateway with this spec, whose listeners have these ports.
fn child(kind: ChildKind, spec: &Value, ports: &[u16], peers: &Value) -> Option<Value> {
    let metadata = json!({"name": "edge", "namespace": "ns", "uid": "uid-edge"});
    let gateway: ForwardGateway =
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a gateway");
    let peers = serde_json::from_value(peers.clone()).expect("peers");
    let fleets = Fleets { network_policies: true, peers, ..Fleets::default() };
    let ports: BTreeSet<_> = ports.iter().map(|port| (Transport::Tcp, *port)).collect();
    let children = children(&ObjectKey::new("ns", "edge"), &gateway, &fleets, "", &ports);
    children.into_iter().find(|(found, _)| *found == kind).map(|(_, manifest)| manifest)
}

fn container(spec: &Value) -> Value {
    let deployment = child(ChildKind::Deployment, spec, &[], &json!([])).expect("a Deployment");
    deployment["spec"]["template"]["spec"]["containers"][0].clone()
}

/// The proxy's variables for tunnels.
fn variables(spec: &Value) -> Vec<Value> {
    let names = ["PORTLANE_TUNNEL_ADDRESS", "PORTLANE_POD_UID", "PORTLANE_MAX_AGENTS"];
    let all = container(spec)["env"].as_array().expect("variables").clone();
    all.into_iter().filter(|variable| names.iter().any(|name| variable["name"] == *name)).collect()
}

#[test]
fn a_proxy_is_told_where_agents_dial_and_which_pod_it_is() {
    assert_eq!(variables(&json!({})), Vec::<Value>::new());
    let uid = json!({"name": "PORTLANE_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}});
    let address = |address: &str| json!({"name": "PORTLANE_TUNNEL_ADDRESS", "value": address});
    assert_eq!(variables(&json!({"tunnels": {}})), [address("[::]:7443"), uid.clone()]);
    let most = json!({"name": "PORTLANE_MAX_AGENTS", "value": "7"});
    assert_eq!(variables(&json!({"tunnels": {"port": 443, "maxAgents": 7}})), [address("[::]:443"), uid, most]);
    let ports = |spec: Value| container(&spec)["ports"].clone();
    let health = json!({"name": "health", "containerPort": 9180, "protocol": "TCP"});
    assert_eq!(ports(json!({})), json!([health]));
    let tunnels = json!({"name": "tunnels", "containerPort": 443, "protocol": "TCP"});
    assert_eq!(ports(json!({"tunnels": {"port": 443}})), json!([health, tunnels]));
}

#[test]
fn the_service_of_a_gateway_has_the_port_of_its_tunnels_also_without_listeners() {
    let ports = |spec: Value, ports: &[u16]| -> Vec<u64> {
        let service = child(ChildKind::Service, &spec, ports, &json!([]));
        let ports = service.map(|service| service["spec"]["ports"].as_array().cloned().unwrap_or_default());
        ports.into_iter().flatten().filter_map(|port| port["port"].as_u64()).collect()
    };
    assert_eq!(ports(json!({}), &[]), [0_u64; 0]);
    assert_eq!(ports(json!({"tunnels": {}}), &[]), [7443]);
    assert_eq!(ports(json!({"tunnels": {"port": 443}}), &[80]), [80, 443]);
    assert_eq!(ports(json!({"tunnels": {}}), &[7443]), [7443], "a port has one entry");
    assert_eq!(ports(json!({"tunnels": {}, "service": {"type": "None"}}), &[]), [0_u64; 0]);
}

#[test]
fn the_policy_of_a_fleet_admits_agents_and_the_pods_of_the_fleet() {
    let rules = |spec: Value, peers: Value| {
        let policy = child(ChildKind::NetworkPolicy, &spec, &[80], &peers).expect("a policy");
        policy["spec"]["ingress"].as_array().expect("rules").clone()
    };
    let tcp = |port: u16| json!({"protocol": "TCP", "port": port});
    let (all, tunnels) = (json!([tcp(80), tcp(7443), tcp(9180)]), json!({"tunnels": {}}));
    assert_eq!(rules(tunnels.clone(), json!([])), [json!({"ports": all})]);
    let peers = json!([{"ipBlock": {"cidr": "10.0.0.0/8"}}]);
    let own = json!([{"podSelector": {"matchLabels": {"portlane.dev/gateway": "edge"}}}]);
    let expected = [json!({"from": peers, "ports": all}), json!({"from": own, "ports": [tcp(7443)]})];
    assert_eq!(rules(tunnels, peers.clone()), expected);
    assert_eq!(rules(json!({}), peers).len(), 1);
}
