//! `kubectl portlane trace FORWARD --from POD`: the steps of a connection from a pod through a forward, and the step at
//! which it stops.
//!
//! Nothing runs in the pod. The steps before the proxy are judged from objects; the connection itself enters the proxy
//! by the API server's port-forward, so its client is the loopback address of the proxy's pod.

mod hello;
mod network;
mod own;
mod steps;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::IpAddr};

use crds::{AcceptHeader, Listener, PortForward, Protocol};
use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
    networking::v1::NetworkPolicy,
};
use operator_core::ObjectKey;
use serde::Serialize;

use crate::{
    access::{Fetched, Listed, Unknown, items},
    check::Outcome,
    describe::{Step, pods},
    live::Session,
    logs::Record,
    placement::{self, gateway, key},
};

pub use self::{
    hello::hello,
    own::{Found, Own},
};

/// The Service of a gateway, if it exists, with its endpoints.
pub type Address = (Fetched<Option<Service>>, Fetched<Listed<EndpointSlice>>);

/// The objects that were read, and the result of the connection.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The forward.
    pub forward: PortForward,
    /// Name of the listener.
    pub listener: String,
    /// The pod from which a client would connect; `None` if it does not exist.
    pub from: (ObjectKey, Fetched<Option<Pod>>),
    /// Name of the nearest pod, if the pod does not exist.
    pub nearest: Option<String>,
    /// The Service of the gateway with its endpoints, unless the forward runs in sidecars.
    pub service: Option<Address>,
    /// The pods that should run the forward.
    pub proxies: Fetched<Listed<Pod>>,
    /// The policies of the namespaces of the client and of the proxies.
    pub policies: BTreeMap<String, Fetched<Listed<NetworkPolicy>>>,
    /// The result of the connection.
    pub probe: Probe,
}

/// The result of a connection into a proxy.
#[derive(Clone, Debug)]
pub enum Probe {
    /// The connection was not tried, for this reason.
    Skipped(String),
    /// The API server did not open the connection.
    Failed(Unknown),
    /// The pod refused the connection.
    Refused {
        /// The pod and the port.
        target: Target,
        /// Message of the container runtime.
        message: String,
    },
    /// The proxy ended the connection.
    Ended {
        /// The pod and the port.
        target: Target,
        /// The record of the access log, if the log has one.
        record: Found<Record>,
    },
    /// The connection was still open at the end.
    Open {
        /// The pod and the port.
        target: Target,
        /// Whether bytes came back.
        has_bytes: bool,
        /// The session, if the live API has it.
        session: Fetched<Found<Box<Session>>>,
    },
}

/// The point where a connection enters a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The proxy's pod.
    pub pod: ObjectKey,
    /// The port of the listener.
    pub port: u16,
}

/// The steps of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The listener, as `NAMESPACE/FORWARD/LISTENER`.
    pub listener: String,
    /// The client's pod, as `NAMESPACE/NAME`.
    pub from: String,
    /// The steps from the client to the backend.
    pub steps: Vec<Step>,
    /// The first step that fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stops: Option<String>,
    /// Whether the connection reached a backend.
    pub reached: bool,
}

impl Report {
    /// Whether every step could be judged.
    pub fn is_complete(&self) -> bool {
        let steps = || self.steps.iter();
        let mut all = steps().map(|step| &step.check).chain(steps().flat_map(|step| &step.items));
        all.all(|check| check.outcome != Outcome::Unknown)
    }
}

/// Returns the listener of this name, or the first one.
pub fn listener<'a>(forward: &'a PortForward, name: Option<&str>) -> Option<&'a Listener> {
    forward.spec.listeners.iter().find(|listener| name.is_none_or(|name| listener.name == name))
}

/// The namespaces whose policies are read.
pub fn namespaces(forward: &PortForward, from: &ObjectKey) -> [String; 2] {
    [from.namespace.clone(), placement::pods(forward).namespace]
}

/// Returns where to connect, or why no connection is tried.
///
/// # Errors
/// The reason in a sentence.
pub fn target(forward: &PortForward, listener: &Listener, from: &ObjectKey, proxies: &[Pod]) -> Result<Target, String> {
    let fixed = |text: &str| Err(text.to_owned());
    let accept = listener.proxy_protocol.as_ref().and_then(|it| it.accept).unwrap_or_default();
    match (listener.protocol, accept) {
        (Protocol::Udp, _) => return fixed("the API server's port-forward does not carry UDP"),
        (_, AcceptHeader::Required) => return fixed("the listener waits for a PROXY header from a trusted peer"),
        _ => {}
    }
    if forward.spec.suspend == Some(true) {
        return fixed("the forward is suspended");
    }
    let is_admitted = |ip: &str| ip.parse().is_ok_and(|ip: IpAddr| network::refusal(forward, ip).is_none());
    if !is_admitted("127.0.0.1") || !is_admitted("::1") {
        return fixed("the API server's port-forward connects from loopback, which spec.access refuses");
    }
    let Some(port) = port(forward, listener) else { return fixed("the listener holds no port") };
    let query = placement::pods(forward);
    let is_usable = |pod: &&Pod| placement::carries(pod, query.container) && !pods::has_ended(pod) && has_address(pod);
    let is_named = |pod: &&Pod| pod.metadata.name.as_deref() == Some(from.name.as_str());
    // A sidecar serves the pod that it is in.
    let is_own = gateway(forward).is_none() && from.namespace == query.namespace;
    let own = proxies.iter().filter(is_named).filter(|_| is_own);
    let mut usable = own.chain(proxies).filter(is_usable);
    let pod = usable.next().and_then(|pod| pod.metadata.name.clone());
    let Some(name) = pod else { return fixed("no pod has a running proxy") };
    Ok(Target { pod: ObjectKey::new(query.namespace, name), port })
}

/// Whether a pod has an address and is not terminating.
fn has_address(pod: &Pod) -> bool {
    let has_ip = pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some());
    has_ip && pod.metadata.deletion_timestamp.is_none()
}

/// The port that a listener holds, or requests.
fn port(forward: &PortForward, listener: &Listener) -> Option<u16> {
    let held = forward.status.iter().flat_map(|status| &status.listeners).find(|held| held.name == listener.name);
    held.map(|held| held.port).or(listener.port)
}

/// Makes the report from the objects and the connection.
pub fn report(facts: &Facts) -> Report {
    let mut steps = vec![steps::client(facts), steps::address(facts), network::policies(facts)];
    steps.push(network::access(facts));
    steps.push(steps::listener(facts));
    let (connection, backend) = steps::probe(facts);
    let reached = backend.as_ref().is_some_and(|step| step.check.outcome == Outcome::Ok);
    steps.push(connection);
    steps.extend(backend);
    let stopped_at =
        steps.iter().find(|step| step.check.outcome == Outcome::Failed).map(|step| step.check.name.clone());
    Report {
        listener: format!("{}/{}", key(&facts.forward), facts.listener),
        from: facts.from.0.to_string(),
        steps,
        stops: stopped_at,
        reached,
    }
}

impl Facts {
    fn pod(&self) -> Option<&Pod> {
        self.from.1.as_ref().ok()?.as_ref()
    }

    fn spec(&self) -> Option<&Listener> {
        listener(&self.forward, Some(&self.listener))
    }

    fn port(&self) -> Option<u16> {
        port(&self.forward, self.spec()?)
    }

    /// Whether the client's pod runs the forward itself.
    fn is_own_sidecar(&self) -> bool {
        let name = self.from.0.name.as_str();
        let is_same = self.from.0.namespace == placement::pods(&self.forward).namespace;
        let own = items(&self.proxies).iter().find(|pod| pod.metadata.name.as_deref() == Some(name));
        gateway(&self.forward).is_none() && is_same && own.is_some()
    }
}
