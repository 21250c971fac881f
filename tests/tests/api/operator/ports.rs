//! Ports that forwards share by server name, and ranges to a headless Service without ports.

use std::net::SocketAddr;

use crds::{AcceptHeader, PortForward};
use harness::{
    Backend, Behaviour, Fleet, Namespace, connect, echoes, free_port, free_range, programs::KubernetesVersion,
    round_trip, until,
};
use serde_json::json;

use super::{own_address, until_ready};

#[test]
fn ports_are_shared_by_names_and_ranges_lead_to_the_pods_of_a_headless_service() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("ports");
    let _fleet = Fleet::open(&namespace);
    headers_before_names(&namespace);
    a_range_to_pods(&namespace);
}

fn apply(namespace: &Namespace<'_>, name: &str, listener: &str) {
    namespace.apply(&format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: {name}}}, spec: {{placement: {{gateway: \
         {{name: edge}}}}, listeners: [{{name: l, {listener}}}]}}}}"
    ));
}

/// The oldest object is edited to read PROXY headers on a shared port: it does not take the port from the others.
fn headers_before_names(namespace: &Namespace<'_>) {
    let port = free_port();
    let named = |name: &str, more: &str| {
        let to = format!("backends: [{{address: {{host: {}, port: 9}}}}]", own_address());
        let listener = format!(
            "protocol: TLS, port: {port}, tls: {{hostnames: [{name}.example]}}, {to}, proxyProtocol: {{{more}}}"
        );
        apply(namespace, name, &listener);
    };
    let header = "accept: Required, trustedCIDRs: [10.99.0.0/16, 10.98.0.0/16]";
    let accepted = |forward: &PortForward| {
        let mut listeners = forward.status.iter().flat_map(|status| &status.listeners);
        listeners.find_map(|listener| listener.proxy_protocol.clone())
    };
    named("one", "");
    named("two", "");
    until_ready(namespace, "one", "True", "Ready");
    assert_eq!(accepted(&until_ready(namespace, "two", "True", "Ready")), None);
    named("one", header);
    until_ready(namespace, "one", "False", "PortConflict");
    until_ready(namespace, "two", "True", "Ready");
    named("two", header);
    let both = [until_ready(namespace, "two", "True", "Ready"), until_ready(namespace, "one", "True", "Ready")];
    for forward in both {
        let accepted = accepted(&forward).expect("status has the accepted headers");
        assert_eq!(accepted.accept, AcceptHeader::Required);
        assert_eq!(accepted.trusted_cidrs, ["10.98.0.0/16", "10.99.0.0/16"]);
    }
}

/// A range follows the pods of a headless Service, port by port.
fn a_range_to_pods(namespace: &Namespace<'_>) {
    let (first, to) = (free_range(3), free_range(3));
    namespace.apply("{apiVersion: v1, kind: Service, metadata: {name: media}, spec: {clusterIP: None}}");
    let listener = format!(
        "protocol: TCP, port: {first}, endPort: {}, backends: [{{service: {{name: media, port: {to}}}}}]",
        first + 2
    );
    apply(namespace, "range", &listener);
    until_ready(namespace, "range", "True", "Ready");
    connect(first).and_then(|mut stream| round_trip(&mut stream, b"x")).expect_err("the Service has no pod");
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "media-1", "labels": {"kubernetes.io/service-name": "media"}},
        "addressType": "IPv4", "endpoints": [{"addresses": [own_address()], "conditions": {"ready": true}}],
    });
    let pods: Vec<Backend> =
        (0..3).map(|at| Backend::start_at(SocketAddr::new(own_address(), to + at), Behaviour::Echo)).collect();
    namespace.apply(&slice.to_string());
    until("the pod serves", || echoes(first));
    round_trip(&mut connect(first + 2).expect("connect"), b"x")
        .expect("the third port leads to the third port of the pod");
    assert_eq!((pods[1].count(), pods[2].count()), (0, 1));
}
