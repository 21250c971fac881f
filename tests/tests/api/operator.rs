//! The operator against a real API server: what it pushes to real proxies, with the tokens of Pods, and what it says in
//! status. No kubelet runs these Pods: their proxies are processes here, and share one machine's ports.

mod app_ports;
mod excess;
mod failover;
mod fields;
mod guards;
mod identity;
mod injection;
mod liars;
mod many;
mod newer;
mod notices;
mod outage;
mod ports;
mod reinstall;
mod restored;
mod rotation;
mod scaling;
mod sidecars;
mod story;
mod verdicts;

use crds::PortForward;
use harness::Namespace;

/// Status and reason of one condition.
fn condition(forward: &PortForward, type_: &str) -> (String, String) {
    let status = forward.status.as_ref();
    let condition = status.and_then(|status| status.conditions.iter().find(|condition| condition.type_ == type_));
    condition.map(|condition| (condition.status.clone(), condition.reason.clone())).unwrap_or_default()
}

/// Waits until `Ready` of a forward has this status and reason, for the generation that it has.
#[track_caller]
fn until_ready(namespace: &Namespace<'_>, name: &str, status: &str, reason: &str) -> PortForward {
    namespace.until::<PortForward>(name, &format!("Ready={status}/{reason}"), |forward| {
        let observed = forward.status.as_ref().and_then(|status| status.observed_generation);
        observed == forward.metadata.generation && condition(forward, "Ready") == (status.to_owned(), reason.to_owned())
    })
}

fn gateway(spec: &str) -> String {
    format!("{{apiVersion: portlane.dev/v1alpha1, kind: ForwardGateway, metadata: {{name: edge}}, spec: {spec}}}")
}

/// A forward of one listener in the gateway `edge`.
fn forward(name: &str, port: u16, backend: &str) -> String {
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: {name}}}, spec: {{placement: {{gateway: \
         {{name: edge}}}}, listeners: [{{name: tcp, protocol: TCP, port: {port}, backends: [{backend}]}}]}}}}"
    )
}

/// A Service without a selector whose one endpoint is a port of this machine, as if it were a pod's.
fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{ports: [{{name: tcp, port: 80, targetPort: {port}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: tcp, port: {port}, protocol: TCP}}]
endpoints: [{{addresses: [{}], conditions: {{ready: true}}}}]
",
        own_address()
    )
}

/// An address of this machine that is not loopback: an API server takes no other as an endpoint's.
fn own_address() -> std::net::IpAddr {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).expect("socket");
    // Nothing is sent: the system only picks the source that it would use.
    match socket.connect(("192.0.2.1", 9)).and_then(|()| socket.local_addr()) {
        Ok(address) => address.ip(),
        Err(error) => panic!("this machine has no address beside loopback: {error}"),
    }
}
