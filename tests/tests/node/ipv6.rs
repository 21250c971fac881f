//! A cluster with IPv6 only: control plane, node, Pods and Services.

use std::net::Ipv6Addr;

use harness::{Cluster, Family, Namespace, Node, greeting, install, round_trip, until};

use crate::{
    fleet::{GATEWAY, call, forward, proxies, shop_on, wait_for},
    shared,
};

const EXAMPLE: &str = include_str!("../../../examples/sidecar.yaml");

/// The node is this test's own: the shared one has IPv4.
// C13, D25
#[test]
fn in_a_cluster_with_ipv6_only_a_fleet_and_a_sidecar_forward_and_the_metrics_api_is_there() {
    if !shared::are_nodes_ours() {
        return;
    }
    if let Some(obstacle) = Family::Six.obstacle() {
        shared::not_run(&obstacle);
        return;
    }
    let node = Node::start_with(Family::Six);
    install(&node, &["--set", "customMetrics.enabled=true"]);
    let namespace = shop_on(&node, "six", "::");
    let example = EXAMPLE.replace("0.0.0.0", "'::'");
    assert_ne!(example, EXAMPLE, "the database of the example listens on every address");
    namespace.apply(&example);
    namespace.apply(&GATEWAY.replace("replicas: 2", "replicas: 1"));
    namespace.apply(&forward("web"));
    a_fleet_forwards_changes_and_grows(&node, &namespace);
    an_app_reaches_the_database_through_its_sidecar(&namespace);
    every_forward_is_ready(&namespace);
    let metrics = "apiservice/v1beta2.custom.metrics.k8s.io";
    node.kubectl(&["wait", "--for=condition=Available", metrics, "--timeout=180s"]).ok();
    every_address_is_of_ipv6(&node);
}

fn a_fleet_forwards_changes_and_grows(node: &Node, namespace: &Namespace<'_>) {
    wait_for(namespace, "portforward/web");
    for protocol in ["tcp", "udp"] {
        // A Service routes a moment after its pods are ready.
        until(&format!("{protocol} goes through the Service"), || call(namespace, protocol) == "web: hello");
    }
    let proxy = proxies(namespace).first().expect("a proxy").1;
    let mut session = node.connect(proxy).expect("the proxy listens");
    assert_eq!(greeting(&mut session).expect("a greeting"), "web: ");
    namespace.apply(&forward("other"));
    for protocol in ["tcp", "udp"] {
        until(&format!("{protocol} goes to the other backend"), || call(namespace, protocol) == "other: hello");
    }
    until("datagrams of the host go to the other backend", || {
        node.ask(proxy).is_ok_and(|answer| answer == "other: hello")
    });
    assert_eq!(round_trip(&mut session, b"two").expect("the session of before continues"), b"two");
    namespace.kubectl(&["scale", "forwardgateway/edge", "--replicas=2"]).ok();
    until("the forward runs in two proxies", || {
        namespace.kubectl(&["get", "pf", "web", "--no-headers"]).stdout.contains("2/2")
    });
}

fn an_app_reaches_the_database_through_its_sidecar(namespace: &Namespace<'_>) {
    namespace.kubectl(&["rollout", "status", "deploy/shop", "--timeout=180s"]).ok();
    wait_for(namespace, "portforward/db");
    for door in ["127.0.0.1:5432", "[::1]:5432"] {
        let words = ["exec", "deploy/shop", "-c", "app", "--", "/portlane-echo", "call", "tcp", door, "hello"];
        until(&format!("{door} leads to the database"), || namespace.kubectl(&words).stdout.trim_end() == "db: hello");
    }
}

/// Waits until `kubectl get pf` has nothing to complain about.
fn every_forward_is_ready(namespace: &Namespace<'_>) {
    until("kubectl get pf shows both forwards as ready", || {
        let table = namespace.kubectl(&["get", "pf", "--no-headers"]).stdout;
        let is_ready = |row: &str| row.split_whitespace().nth(1) == Some("True");
        table.lines().count() == 2 && table.lines().all(is_ready)
    });
}

/// Addresses of IPv4 would mean that something else than IPv6 was tested.
fn every_address_is_of_ipv6(cluster: &Cluster) {
    let of = |kinds: &str, path: &str| {
        let output = format!("--output=jsonpath={{.items[*]{path}}}");
        cluster.kubectl(&["get", kinds, "--all-namespaces", &output]).ok()
    };
    for (kinds, path) in [
        ("nodes", ".status.addresses[?(@.type==\"InternalIP\")].address"),
        ("pods", ".status.podIPs[*].ip"),
        ("services", ".spec.clusterIPs[*]"),
        ("forwardgateways", ".status.addresses[*].value"),
        ("portforwards", ".status.addresses[*].value"),
    ] {
        until(&format!("{kinds} have addresses"), || !of(kinds, path).trim().is_empty());
        for address in of(kinds, path).split_whitespace() {
            assert!(address.parse::<Ipv6Addr>().is_ok(), "{kinds}: {address}");
        }
    }
}
