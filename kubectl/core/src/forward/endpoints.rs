//! The pods behind a Service or a Deployment, and the port in each of them.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1::{Pod, Service, ServicePort},
    discovery::v1::{Endpoint as SliceEndpoint, EndpointPort, EndpointSlice},
};

use super::{mapping::Remote, target::Target};

/// A pod. A pod that replaces another of the same name has another uid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodId {
    /// Name of the pod.
    pub name: String,
    /// Uid of the pod.
    pub uid: String,
}

/// A port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The pod.
    pub pod: PodId,
    /// The port in the pod.
    pub port: u16,
    /// Whether the pod takes new connections.
    pub is_ready: bool,
}

/// Why a target has no endpoints, however many pods it has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// The target has no such port.
    #[error("{target} has no TCP port {port}{}", have(.ports))]
    NoPort {
        /// The target.
        target: Target,
        /// The requested port.
        port: String,
        /// TCP ports that the target has.
        ports: Vec<String>,
    },
    /// The port is not TCP.
    #[error("port {port} of {target} is not TCP, and the API server forwards TCP only")]
    NotTcp {
        /// The target.
        target: Target,
        /// The requested port.
        port: String,
    },
    /// The target has several ports, and none was requested.
    #[error("{target} has more than one TCP port: name one of {}", .ports.join(", "))]
    Several {
        /// The target.
        target: Target,
        /// TCP ports that the target has.
        ports: Vec<String>,
    },
    /// The Service is a name outside the cluster.
    #[error("{0} is an ExternalName, and the API server forwards to pods only: connect to {1}")]
    External(Target, String),
    /// The Service has endpoints that are not pods.
    #[error("the endpoints of {0} are not pods, and the API server forwards to pods only")]
    NotPods(Target),
    /// The operator has not reported a listener.
    #[error("{target} holds no port yet: kubectl portlane describe {} says why", .target.name)]
    NoListener {
        /// The forward.
        target: Target,
    },
}

fn have(ports: &[String]) -> String {
    if ports.is_empty() { String::new() } else { format!(": it has {}", ports.join(", ")) }
}

/// A port that an object declares.
pub(crate) struct Declared<'a, P> {
    /// The declaration.
    pub(crate) port: &'a P,
    /// Number of the port.
    pub(crate) number: u16,
    /// Name of the port; empty if it has none.
    pub(crate) name: &'a str,
    /// Whether the port is not TCP.
    pub(crate) is_udp: bool,
}

/// A port that was found.
pub(crate) struct Found<'a, P> {
    /// The declaration.
    pub(crate) port: &'a P,
    /// Number of the port.
    pub(crate) number: u16,
}

/// Finds the requested TCP port. All kinds of targets use the same rules.
pub(crate) fn find<'a, P>(
    target: &Target,
    all: &[Declared<'a, P>],
    wanted: &Remote,
) -> Result<Found<'a, P>, Unresolved> {
    let tcp = || all.iter().filter(|it| !it.is_udp);
    let is_meant = |it: &Declared<'a, P>| match wanted {
        Remote::Number(number) => it.number == *number,
        Remote::Name(name) => it.name == name,
        Remote::Only => true,
    };
    let describe = |it: &Declared<'a, P>| match it.name {
        "" => it.number.to_string(),
        name => format!("{} ({name})", it.number),
    };
    let port = if *wanted == Remote::Only { "at all".to_owned() } else { wanted.to_string() };
    let (ports, target) = (tcp().map(describe).collect(), target.clone());
    if *wanted == Remote::Only && tcp().count() > 1 {
        return Err(Unresolved::Several { target, ports });
    }
    if let Some(found) = tcp().find(|it| is_meant(it)) {
        return Ok(Found { port: found.port, number: found.number });
    }
    if all.iter().any(|it| it.is_udp && is_meant(it)) {
        return Err(Unresolved::NotTcp { target, port });
    }
    Err(Unresolved::NoPort { target, port, ports })
}

/// Converts a port number of an API object, which has a wider type there.
pub(crate) fn narrow(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

fn is_udp(protocol: Option<&str>) -> bool {
    protocol.is_some_and(|protocol| protocol != "TCP")
}

/// Returns the requested port of a Service. `None`: the Service is headless and has no ports of its own, so that the
/// number is that of the pods.
///
/// # Errors
/// The Service has no such TCP port, or has no pods by its kind.
pub fn service_port<'a>(
    target: &Target,
    service: &'a Service,
    wanted: &Remote,
) -> Result<Option<&'a ServicePort>, Unresolved> {
    let Some(spec) = &service.spec else { return Ok(None) };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Err(Unresolved::External(target.clone(), spec.external_name.clone().unwrap_or_default()));
    }
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() && matches!(wanted, Remote::Number(_)) {
        return Ok(None);
    }
    let all = ports.iter().filter_map(|port| {
        let (name, is_udp) = (port.name.as_deref().unwrap_or_default(), is_udp(port.protocol.as_deref()));
        Some(Declared { port, number: narrow(port.port)?, name, is_udp })
    });
    find(target, &all.collect::<Vec<_>>(), wanted).map(|found| Some(found.port))
}

/// Returns the endpoints of a Service for one of its ports.
///
/// # Errors
/// The Service has no such TCP port, or its endpoints are not pods.
pub fn of_service<'a>(
    target: &Target,
    service: &Service,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    wanted: &Remote,
) -> Result<Vec<Endpoint>, Unresolved> {
    let port = service_port(target, service, wanted)?;
    let is_port = |found: &&EndpointPort| {
        let name = port.and_then(|port| port.name.as_deref()).unwrap_or_default();
        !is_udp(found.protocol.as_deref()) && found.name.as_deref().unwrap_or_default() == name
    };
    let mut found: BTreeMap<PodId, Endpoint> = BTreeMap::new();
    let mut others = 0_usize;
    for slice in slices {
        let number = match (port, wanted) {
            (None, Remote::Number(number)) => Some(*number),
            _ => slice.ports.iter().flatten().find(is_port).and_then(|found| found.port).and_then(narrow),
        };
        let Some(number) = number else { continue };
        for endpoint in &slice.endpoints {
            let Some(pod) = pod_of(endpoint) else {
                others += 1;
                continue;
            };
            let is_ready = is_ready(endpoint);
            // A pod with two address families is in two slices.
            let entry = found.entry(pod.clone()).or_insert(Endpoint { pod, port: number, is_ready });
            entry.is_ready |= is_ready;
        }
    }
    if found.is_empty() && others > 0 {
        return Err(Unresolved::NotPods(target.clone()));
    }
    Ok(found.into_values().collect())
}

fn pod_of(endpoint: &SliceEndpoint) -> Option<PodId> {
    let reference = endpoint.target_ref.as_ref().filter(|reference| reference.kind.as_deref() == Some("Pod"))?;
    Some(PodId { name: reference.name.clone()?, uid: reference.uid.clone().unwrap_or_default() })
}

/// Whether an endpoint takes new connections. By the API, an absent condition means yes.
fn is_ready(endpoint: &SliceEndpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
        && !conditions.and_then(|conditions| conditions.terminating).unwrap_or(false)
}

/// The pods that take new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Pods that are ready.
    Ready,
    /// Pods that run: a user may debug a pod because it is not ready.
    Running,
}

/// Returns the endpoints of pods for one of their ports.
///
/// # Errors
/// There are pods, and none has such a TCP port.
pub fn of_pods<'a>(
    target: &Target,
    pods: impl IntoIterator<Item = &'a Pod>,
    wanted: &Remote,
    takes: Takes,
) -> Result<Vec<Endpoint>, Unresolved> {
    let (mut found, mut last) = (Vec::new(), None);
    for pod in pods.into_iter().filter(|pod| !has_ended(pod)) {
        match pod_port(target, pod, wanted) {
            Ok(port) => found.extend(id(pod).map(|id| Endpoint { pod: id, port, is_ready: takes_new(pod, takes) })),
            Err(why) => last = Some(why),
        }
    }
    match last {
        Some(why) if found.is_empty() => Err(why),
        _ => Ok(found),
    }
}

/// Returns the requested port of a pod. A number needs no declaration.
fn pod_port(target: &Target, pod: &Pod, wanted: &Remote) -> Result<u16, Unresolved> {
    let spec = pod.spec.as_ref();
    let containers = spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    let declared = containers.flat_map(|container| container.ports.iter().flatten());
    let all = declared.filter_map(|port| {
        let (name, is_udp) = (port.name.as_deref().unwrap_or_default(), is_udp(port.protocol.as_deref()));
        Some(Declared { port, number: narrow(port.container_port)?, name, is_udp })
    });
    match (find(target, &all.collect::<Vec<_>>(), wanted), wanted) {
        (Err(Unresolved::NoPort { .. }), Remote::Number(number)) => Ok(*number),
        (found, _) => found.map(|found| found.number),
    }
}

/// Name and uid of a pod.
pub fn id(pod: &Pod) -> Option<PodId> {
    Some(PodId { name: pod.metadata.name.clone()?, uid: pod.metadata.uid.clone().unwrap_or_default() })
}

/// Whether the containers of a pod have ended for good.
pub fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), Some("Succeeded" | "Failed"))
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

fn takes_new(pod: &Pod, takes: Takes) -> bool {
    let conditions = pod.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    let is_ready = || conditions.clone().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let is_running = phase(pod) == Some("Running") && pod.metadata.deletion_timestamp.is_none();
    is_running && (takes == Takes::Running || is_ready())
}

#[cfg(test)]
mod tests;
