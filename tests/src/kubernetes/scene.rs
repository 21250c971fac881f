//! Where most tests of the operator start: a gateway whose proxy is a process of this machine, and mostly a forward
//! that is ready.

use std::{net::IpAddr, path::Path};

use crds::PortForward;

use super::{FleetPod, FleetProxy, Namespace, Operator, roots};
use crate::{Backend, Behaviour, binary, free_port};

/// An operator, the gateway `edge` with one ready proxy, and the forward `web`, which leads from a port of this machine
/// to an echo server. Every part runs until it is dropped.
pub struct Scene<'a> {
    /// The proxy of [`Self::pod`].
    pub proxy: FleetProxy,
    /// The Pod `p1` of the gateway.
    pub pod: FleetPod,
    /// The echo server behind the Service `web`.
    pub backend: Backend,
    /// Port of the forward `web`.
    pub port: u16,
    /// The operator, which leads.
    pub operator: Operator,
    /// The namespace of it all.
    pub namespace: Namespace<'a>,
}

impl<'a> Scene<'a> {
    /// Sets the scene and waits until `web` is ready.
    #[track_caller]
    pub fn ready_gateway(namespace: Namespace<'a>) -> Self {
        Self::ready_gateway_with(namespace, &[])
    }

    /// Sets the scene with further options of the operator.
    #[track_caller]
    pub fn ready_gateway_with(namespace: Namespace<'a>, options: &[&str]) -> Self {
        let operator = Operator::with(&namespace, options);
        Self::ready_gateway_of(namespace, operator, &binary("portlane-proxy"))
    }

    /// Sets the scene with this operator and this program of a proxy, each of any version.
    #[track_caller]
    pub fn ready_gateway_of(namespace: Namespace<'a>, operator: Operator, proxy: &Path) -> Self {
        let (backend, port) = (Backend::reachable(Behaviour::Echo), free_port());
        let web = [
            gateway("{replicas: 1}"),
            service("web", backend.port),
            forward("web", port, "{service: {name: web, port: 80}}"),
        ];
        namespace.apply(&web.join("\n---\n"));
        let pod = FleetPod::of_gateway(&namespace, "edge", "p1");
        let token = pod.token(&namespace, "edge", "portlane-operator");
        let proxy = FleetProxy::of_program(proxy, &token, &roots(&namespace), operator.stream);
        pod.set_ready(&namespace, true);
        until_ready(&namespace, "web", "True", "Ready");
        Self { proxy, pod, backend, port, operator, namespace }
    }
}

/// An operator, and the gateway `edge` with one ready proxy, for tests whose forwards are their own. Every part runs
/// until it is dropped.
pub struct Fleet {
    /// The proxy of [`Self::pod`].
    pub proxy: FleetProxy,
    /// The Pod `p1` of the gateway.
    pub pod: FleetPod,
    /// The operator, which leads.
    pub operator: Operator,
}

impl Fleet {
    /// The gateway has this spec.
    #[track_caller]
    pub fn start(namespace: &Namespace<'_>, spec: &str) -> Self {
        Self::of(namespace, Operator::start(namespace), spec)
    }

    /// The gateway has this spec, and its operator is this one.
    #[track_caller]
    pub fn of(namespace: &Namespace<'_>, operator: Operator, spec: &str) -> Self {
        namespace.apply(&gateway(spec));
        let (pod, proxy) = FleetPod::ready_in_gateway(namespace, "edge", "p1", &operator);
        Self { proxy, pod, operator }
    }

    /// The gateway may connect to this machine.
    #[track_caller]
    pub fn open(namespace: &Namespace<'_>) -> Self {
        let own = own_address();
        Self::start(namespace, &format!("{{replicas: 1, allowedForwards: {{addressCIDRs: ['{own}/32']}}}}"))
    }
}

/// The gateway `edge` with this spec.
pub fn gateway(spec: &str) -> String {
    format!("{{apiVersion: portlane.dev/v1alpha1, kind: ForwardGateway, metadata: {{name: edge}}, spec: {spec}}}")
}

/// A forward of one listener in the gateway `edge`.
pub fn forward(name: &str, port: u16, backend: &str) -> String {
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: {name}}}, spec: {{placement: {{gateway: \
         {{name: edge}}}}, listeners: [{{name: tcp, protocol: TCP, port: {port}, backends: [{backend}]}}]}}}}"
    )
}

/// A Service without a selector, and an `EndpointSlice` with a port of this machine as if the port were a pod's.
pub fn service(name: &str, port: u16) -> String {
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

/// An address of this machine other than loopback: the API server refuses loopback as an endpoint.
///
/// # Panics
/// This machine has no other address.
pub fn own_address() -> IpAddr {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).expect("socket");
    // Nothing is sent: the system only picks the source address.
    match socket.connect(("192.0.2.1", 9)).and_then(|()| socket.local_addr()) {
        Ok(address) => address.ip(),
        Err(error) => panic!("this machine has no address beside loopback: {error}"),
    }
}

/// Status and reason of a condition; empty if the condition is missing.
pub fn condition(forward: &PortForward, type_: &str) -> (String, String) {
    let status = forward.status.as_ref();
    let condition = status.and_then(|status| status.conditions.iter().find(|condition| condition.type_ == type_));
    condition.map(|condition| (condition.status.clone(), condition.reason.clone())).unwrap_or_default()
}

/// Waits until `Ready` of a forward has this status and reason for the forward's newest generation.
///
/// # Panics
/// As [`Namespace::until`].
#[track_caller]
pub fn until_ready(namespace: &Namespace<'_>, name: &str, status: &str, reason: &str) -> PortForward {
    namespace.until::<PortForward>(name, &format!("Ready={status}/{reason}"), |forward| {
        let observed = forward.status.as_ref().and_then(|status| status.observed_generation);
        observed == forward.metadata.generation && condition(forward, "Ready") == (status.to_owned(), reason.to_owned())
    })
}
