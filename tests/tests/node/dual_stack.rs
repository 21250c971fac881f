//! A cluster with IPv4 and IPv6: a gateway is reached by either, and reaches backends of either, whatever its clients
//! use.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
};

use crds::ForwardGateway;
use harness::{Family, Namespace, Node, greeting, install, until};
use k8s_openapi::api::core::v1::Service;

use crate::{
    fleet::{GATEWAY, shop_on, wait_for},
    shared,
};

/// Services in front of backends: `web` has the first family only, as every Service that asks for nothing; `second` has
/// the other one only; `pair` has both.
const BACKENDS: &str = "apiVersion: v1
kind: Service
metadata: {name: second}
spec:
  ipFamilyPolicy: SingleStack
  ipFamilies: [SECOND]
  selector: {app: other}
  ports: [{name: tcp, port: 80, targetPort: 8000}, {name: udp, port: 80, targetPort: 8000, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: pair}
spec:
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{name: tcp, port: 80, targetPort: 8000}, {name: udp, port: 80, targetPort: 8000, protocol: UDP}]
";

/// A port of the gateway, the Service that it leads to, and what the backend says first.
type Port = (u16, &'static str, &'static str);
const PORTS: [Port; 3] = [(80, "web", "web: "), (81, "second", "other: "), (82, "pair", "web: ")];

#[test]
fn in_a_cluster_with_both_families_a_gateway_serves_both_and_reaches_backends_of_either() {
    a_gateway_serves_both_families(Family::Dual, "IPv6");
}

#[test]
fn with_ipv6_as_the_first_of_both_families_a_gateway_serves_both_and_reaches_backends_of_either() {
    a_gateway_serves_both_families(Family::DualSix, "IPv4");
}

/// The node is the test's own: the shared one has IPv4. It starts beside other tests.
fn a_gateway_serves_both_families(family: Family, second: &str) {
    if !shared::are_nodes_ours() {
        return;
    }
    if let Some(obstacle) = family.obstacle() {
        shared::not_run(&obstacle);
        return;
    }
    let node = Node::start_with(family);
    install(&node, &[]);
    let namespace = shop_on(&node, "dual", "::");
    let backends = BACKENDS.replace("SECOND", second);
    namespace.apply(&[backends, front(), GATEWAY.replace("replicas: 2", "replicas: 1"), forward()].join("\n---\n"));
    wait_for(&namespace, "portforward/web");
    // The gateway's own Service prefers both families; the one of a user requires them.
    for service in ["edge", "front"] {
        let addresses = addresses(&namespace, service);
        assert_eq!(addresses.iter().filter(|ip| ip.is_ipv4()).count(), 1, "{addresses:?}");
        for (ip, (port, _, name)) in addresses.iter().flat_map(|ip| PORTS.map(|port| (ip, port))) {
            let at = SocketAddr::new(*ip, port);
            // A Service routes a moment after its pods are ready.
            until(&format!("a session by {service} at {at}"), || session(&node, at).is_ok_and(|first| first == name));
            let answer = format!("{name}hello");
            until(&format!("a datagram by {service} at {at}"), || node.ask(at).is_ok_and(|it| it == answer));
        }
    }
    let own: BTreeSet<String> = addresses(&namespace, "edge").iter().map(ToString::to_string).collect();
    namespace.until::<ForwardGateway>("edge", "its status has both addresses", |gateway| {
        let told = gateway.status.iter().flat_map(|status| &status.addresses);
        told.map(|address| address.value.clone()).collect::<BTreeSet<String>>() == own
    });
}

/// The two addresses of a Service.
fn addresses(namespace: &Namespace<'_>, service: &str) -> Vec<IpAddr> {
    let of = |service: &Service| service.spec.as_ref().and_then(|spec| spec.cluster_ips.clone()).unwrap_or_default();
    let service = namespace.until::<Service>(service, "has two addresses", |service| of(service).len() == 2);
    of(&service).iter().map(|ip| ip.parse().expect("an address")).collect()
}

/// A Service of a user's own in front of the gateway's pods.
fn front() -> String {
    let port = |(port, ..): Port| {
        format!("{{name: tcp-{port}, port: {port}}}, {{name: udp-{port}, port: {port}, protocol: UDP}}")
    };
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: front}}, spec: {{ipFamilyPolicy: RequireDualStack, selector: \
         {{portlane.dev/gateway: edge}}, ports: [{}]}}}}",
        PORTS.map(port).join(", ")
    )
}

/// The forward `web`, with a TCP and a UDP listener on each port.
fn forward() -> String {
    let listeners = |(port, service, _): Port| {
        let backends = format!("[{{service: {{name: {service}, port: 80}}}}]");
        let listener = |name: &str, protocol: &str| {
            format!("{{name: {name}-{port}, protocol: {protocol}, port: {port}, backends: {backends}}}")
        };
        [listener("tcp", "TCP"), listener("udp", "UDP")].join(", ")
    };
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: web}}, spec: {{placement: {{gateway: \
         {{name: edge}}}}, listeners: [{}]}}}}",
        PORTS.map(listeners).join(", ")
    )
}

/// What the backend of a new session from the host of the node says first.
fn session(node: &Node, at: SocketAddr) -> io::Result<String> {
    greeting(&mut node.connect(at)?)
}
