//! Converts watched objects of the API server into [`Object`]s.

mod drainers;
mod fleet;
mod sidecar;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use crds::{ForwardAgent, ForwardGateway, PortForward, Protocol};
use k8s_openapi::{
    api::{
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{LoadBalancerIngress, Namespace, Pod, PodStatus, Service},
        discovery::v1::{self as discovery, EndpointSlice},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kube::core::{DynamicObject, PartialObjectMeta, error_boundary::InvalidObject};
use proxy_api::{Endpoint, OriginKind, Transport};

use crate::{
    names::{APP_PORTS, DELETION_COST, DRAINS_LABEL, FORWARD_LABEL, GATEWAY_LABEL, NAME, PROBLEM},
    world::{
        Grant, ObjectKey, app_ports,
        child::{ChildKind, Mark},
        crash_loop::crash_loop,
        guarded::Guarded,
        managed_fields::has_field,
        objects::{
            AutoscalerCondition, AutoscalerConditions, AutoscalerState, Cost, Drain, Hold, Object, PodInfo,
            ServiceInfo, SliceInfo, Unreadable,
        },
        reach::Front,
        subject::Subject,
    },
};

pub use self::{
    drainers::{claim, drainer},
    fleet::{deployment, stateful_set},
};

impl Unreadable {
    fn new(InvalidObject { error: why, mut metadata }: InvalidObject, class: String) -> Self {
        strip(&mut metadata);
        Self { why, metadata, class }
    }
}

fn key(metadata: &ObjectMeta) -> ObjectKey {
    ObjectKey::new(metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

/// Removes large fields that nothing uses.
fn strip(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    metadata.annotations = None;
    metadata.labels = None;
    metadata.owner_references = None;
}

/// Reads a forward. A forward that does not deserialise becomes [`Unreadable`].
#[must_use]
pub fn forward(Guarded { read, class }: Guarded<PortForward>) -> Object {
    match read {
        Ok(mut forward) => {
            strip(&mut forward.metadata);
            Object::Forward(key(&forward.metadata), Box::new(Ok(forward)))
        }
        Err(error) => Object::Forward(key(&error.metadata), Box::new(Err(Unreadable::new(error, class)))),
    }
}

/// Reads a gateway. A gateway that does not deserialise becomes [`Unreadable`].
#[must_use]
pub fn gateway(Guarded { read, class }: Guarded<ForwardGateway>) -> Object {
    match read {
        Ok(mut gateway) => {
            strip(&mut gateway.metadata);
            Object::Gateway(key(&gateway.metadata), Box::new(Ok(gateway)))
        }
        Err(error) => Object::Gateway(key(&error.metadata), Box::new(Err(Unreadable::new(error, class)))),
    }
}

/// Reads an agent. An agent that does not deserialise becomes [`Unreadable`].
#[must_use]
pub fn agent(Guarded { read, class }: Guarded<ForwardAgent>) -> Object {
    match read {
        Ok(mut agent) => {
            strip(&mut agent.metadata);
            Object::Agent(key(&agent.metadata), Box::new(Ok(agent)))
        }
        Err(error) => Object::Agent(key(&error.metadata), Box::new(Err(Unreadable::new(error, class)))),
    }
}

fn protocol(text: Option<&str>) -> Option<Protocol> {
    match text {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some(_) => None,
    }
}

/// Reads a Service.
#[must_use]
pub fn service(service: &Service) -> Object {
    let spec = service.spec.as_ref();
    let external = spec.filter(|spec| spec.type_.as_deref() == Some("ExternalName"));
    let ports = spec.and_then(|spec| spec.ports.as_ref()).into_iter().flatten().filter_map(|port| {
        let name = port.name.clone().unwrap_or_default();
        Some((name, protocol(port.protocol.as_deref())?, u16::try_from(port.port).ok()?))
    });
    let info = ServiceInfo {
        external: external.and_then(|spec| spec.external_name.clone()),
        ports: ports.collect(),
        addresses: addresses(service),
        is_balanced: ingress(service).any(|item| item.ip.is_some() || item.hostname.is_some()),
        gateway: service.metadata.labels.as_ref().and_then(|labels| labels.get(GATEWAY_LABEL).cloned()),
        selector: spec.and_then(|spec| spec.selector.clone()).unwrap_or_default(),
        front: front(service),
        mark: Mark::of(&service.metadata),
    };
    Object::Service(key(&service.metadata), info)
}

/// Type and value of each address, in the form of status.
fn addresses(service: &Service) -> Vec<(String, String)> {
    let ip = |value: &String| ("IPAddress".to_owned(), value.clone());
    let host = |value: &String| ("Hostname".to_owned(), value.clone());
    let outside: Vec<_> = ingress(service)
        .filter_map(|item| item.ip.as_ref().map(ip).or_else(|| item.hostname.as_ref().map(host)))
        .collect();
    let spec = service.spec.as_ref();
    if !outside.is_empty() || spec.and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer") {
        return outside;
    }
    let inside = spec.and_then(|spec| spec.cluster_ips.as_ref()).into_iter().flatten();
    inside.filter(|address| *address != "None").map(ip).collect()
}

fn ingress(service: &Service) -> impl Iterator<Item = &LoadBalancerIngress> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten()
}

/// The addresses at which a Service listens, inside the cluster and outside.
fn front(service: &Service) -> Front {
    let spec = service.spec.as_ref();
    let inside = spec.and_then(|spec| spec.cluster_ips.as_ref()).into_iter().flatten();
    let outside = spec.and_then(|spec| spec.external_ips.as_ref()).into_iter().flatten();
    let balanced = ingress(service).filter_map(|item| item.ip.as_ref());
    let asked = spec.and_then(|spec| spec.load_balancer_ip.as_ref());
    let hosts = ingress(service).filter_map(|item| item.hostname.as_ref());
    let moved = spec.and_then(|spec| spec.ports.as_ref()).into_iter().flatten().filter_map(|port| {
        let Some(IntOrString::Int(target)) = port.target_port else { return None };
        let transport = match protocol(port.protocol.as_deref())? {
            Protocol::Udp => Transport::Udp,
            Protocol::Tcp | Protocol::Tls => Transport::Tcp,
        };
        let (port, target) = (u16::try_from(port.port).ok()?, u16::try_from(target).ok()?);
        (port != target).then_some((transport, port, target))
    });
    Front {
        addresses: inside.chain(outside).chain(balanced).chain(asked).filter_map(|ip| ip.parse().ok()).collect(),
        hosts: hosts.map(|host| host.trim_end_matches('.').to_ascii_lowercase()).collect(),
        moved: moved.collect(),
    }
}

/// Label of a slice with the controller that writes it.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The controller that writes the pods of a Service with a selector into slices, and reverts other writes there.
const SLICE_CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// Whether an endpoint refers to a pod of this namespace.
fn is_pod(endpoint: &discovery::Endpoint, namespace: Option<&String>) -> bool {
    let target = endpoint.target_ref.as_ref();
    target.is_some_and(|target| target.kind.as_deref() == Some("Pod") && target.namespace.as_ref() == namespace)
}

/// Reads an `EndpointSlice`; keeps ready endpoints only.
#[must_use]
pub fn slice(slice: &EndpointSlice) -> Object {
    let labels = slice.metadata.labels.as_ref();
    let service = labels.and_then(|labels| labels.get("kubernetes.io/service-name")).cloned().unwrap_or_default();
    let is_managed = labels.and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|by| by == SLICE_CONTROLLER);
    let ready = slice
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true));
    let (mut ips, mut podless): (Vec<IpAddr>, BTreeSet<IpAddr>) = (Vec::new(), BTreeSet::new());
    for endpoint in ready {
        let addresses: Vec<IpAddr> = endpoint.addresses.iter().filter_map(|ip| ip.parse().ok()).collect();
        if !is_managed || !is_pod(endpoint, slice.metadata.namespace.as_ref()) {
            podless.extend(&addresses);
        }
        ips.extend(addresses);
    }
    let mut endpoints: BTreeMap<_, BTreeSet<Endpoint>> = BTreeMap::new();
    for port in slice.ports.iter().flatten() {
        let number = port.port.and_then(|port| u16::try_from(port).ok());
        let (Some(protocol), Some(number)) = (protocol(port.protocol.as_deref()), number) else { continue };
        let name = (port.name.clone().unwrap_or_default(), protocol == Protocol::Udp);
        endpoints.entry(name).or_default().extend(ips.iter().map(|ip| Endpoint::from(SocketAddr::new(*ip, number))));
    }
    let hosts = ips.into_iter().collect();
    Object::Slice(key(&slice.metadata), SliceInfo { service, endpoints, hosts, podless })
}

fn pod_info(metadata: &ObjectMeta) -> PodInfo {
    let labels = metadata.labels.clone().unwrap_or_default();
    let annotation = |name: &str| metadata.annotations.as_ref().and_then(|all| all.get(name));
    PodInfo {
        uid: metadata.uid.clone().unwrap_or_default(),
        leaving: metadata.deletion_timestamp.is_some(),
        gateway: labels.get(GATEWAY_LABEL).cloned(),
        drains: labels.get(DRAINS_LABEL).cloned(),
        problem: annotation(PROBLEM).cloned(),
        app_ports: annotation(APP_PORTS).map(|text| app_ports::read(text)).unwrap_or_default(),
        labels,
        ..PodInfo::default()
    }
}

/// Reads the metadata of a pod.
#[must_use]
pub fn pod(pod: &PartialObjectMeta<Pod>) -> Object {
    Object::Pod(key(&pod.metadata), pod_info(&pod.metadata))
}

/// The deletion cost of a pod. Needs the annotations and managed fields of its metadata.
pub fn cost_of(metadata: &ObjectMeta) -> Cost {
    let Some(value) = metadata.annotations.as_ref().and_then(|all| all.get(DELETION_COST)) else { return Cost::Unset };
    let mut entries = metadata.managed_fields.iter().flatten();
    let is_ours = entries.any(|entry| {
        entry.manager.as_deref() == Some(NAME) && has_field(entry, &["metadata", "annotations", DELETION_COST])
    });
    if is_ours { value.parse().map_or(Cost::Foreign, Cost::Ours) } else { Cost::Foreign }
}

fn replica_set(metadata: &ObjectMeta) -> Option<String> {
    let mut owners = metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.kind == "ReplicaSet" && owner.controller == Some(true)).map(|owner| owner.name.clone())
}

fn pod_ips(status: &PodStatus) -> BTreeSet<IpAddr> {
    let all = status.pod_ips.iter().flatten().map(|ip| &ip.ip);
    all.chain(&status.pod_ip).filter_map(|ip| ip.parse().ok()).collect()
}

fn node_ips(status: &PodStatus) -> BTreeSet<IpAddr> {
    let all = status.host_ips.iter().flatten().map(|ip| &ip.ip);
    all.chain(&status.host_ip).filter_map(|ip| ip.parse().ok()).collect()
}

/// Reads a pod with a proxy.
#[must_use]
pub fn proxy_pod(pod: &Pod) -> Object {
    let status = pod.status.as_ref();
    let ended = matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"));
    let mut conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let info = pod_info(&pod.metadata);
    let info = PodInfo {
        replica_set: replica_set(&pod.metadata),
        cost: cost_of(&pod.metadata),
        drain: if info.drains.is_some() { drainers::drain(pod) } else { Drain::default() },
        hold: if info.gateway.is_some() { fleet::hold(pod) } else { Hold::default() },
        crash_loop: crash_loop(pod),
        sidecar_image: sidecar::image(pod),
        leaving: info.leaving || ended,
        ended,
        grace: pod.metadata.deletion_grace_period_seconds.and_then(|grace| u32::try_from(grace).ok()).unwrap_or(0),
        ready: conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        service_account: pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        ip: status.and_then(|status| status.pod_ip.as_ref()?.parse().ok()),
        ips: status.map(pod_ips).unwrap_or_default(),
        node_ips: status.map(node_ips).unwrap_or_default(),
        created: pod.metadata.creation_timestamp.as_ref().and_then(|time| u64::try_from(time.0.as_second()).ok()),
        ..info
    };
    Object::ProxyPod(key(&pod.metadata), info)
}

/// Reads the labels of a namespace.
#[must_use]
pub fn namespace(namespace: &PartialObjectMeta<Namespace>) -> Object {
    Object::Namespace(key(&namespace.metadata), namespace.metadata.labels.clone().unwrap_or_default())
}

/// Reads the metadata of a child of a gateway.
#[must_use]
pub fn child(kind: ChildKind, metadata: &ObjectMeta) -> Object {
    Object::Child(kind, key(metadata), Mark::of(metadata))
}

/// Reads an autoscaler that the operator created.
#[must_use]
pub fn scaler(scaler: &HorizontalPodAutoscaler) -> Object {
    let key = key(&scaler.metadata);
    let label = |label: &str| scaler.metadata.labels.as_ref().and_then(|labels| labels.get(label)).cloned();
    let named = |name: String| ObjectKey::new(key.namespace.clone(), name);
    let subject = match label(FORWARD_LABEL) {
        Some(name) => Subject::Forward(named(name)),
        None => Subject::Gateway(named(label(GATEWAY_LABEL).unwrap_or_default())),
    };
    let status = scaler.status.as_ref();
    let condition = |type_: &str| {
        let mut conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        let found = conditions.find(|condition| condition.type_ == type_)?;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Some(AutoscalerCondition {
            holds: found.status == "True",
            reason: text(&found.reason),
            message: text(&found.message),
        })
    };
    let mut owners = scaler.metadata.owner_references.iter().flatten();
    let target = scaler.spec.as_ref().map(|spec| &spec.scale_target_ref);
    let state = AutoscalerState {
        owner: owners.next().map(|owner| owner.uid.clone()).unwrap_or_default(),
        subject,
        conditions: AutoscalerConditions { able: condition("AbleToScale"), active: condition("ScalingActive") },
        desired: status.map_or(0, |status| status.desired_replicas),
        least: scaler.spec.as_ref().and_then(|spec| spec.min_replicas).unwrap_or(1),
        target: target.map(|target| (target.kind.clone(), target.name.clone())).unwrap_or_default(),
        current: status.and_then(|status| status.current_replicas).unwrap_or(0),
        mark: Mark::of(&scaler.metadata),
    };
    Object::Scaler(key, Box::new(state))
}

/// Reads one grant for every pair of a `from` that names forwards and a `to` that names Services.
#[must_use]
pub fn grants(object: &DynamicObject) -> Object {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let items = |list: &str| object.data["spec"][list].as_array().cloned().unwrap_or_default();
    let mut grants = BTreeSet::new();
    for from in items("from") {
        let (group, kind) = (from["group"].as_str(), from["kind"].as_str());
        let Some(whose) =
            from["namespace"].as_str().filter(|_| (group, kind) == (Some(crds::GROUP), Some("PortForward")))
        else {
            continue;
        };
        for to in items("to") {
            if matches!(to["group"].as_str(), None | Some("")) && to["kind"].as_str() == Some("Service") {
                let service = to["name"].as_str().map(str::to_owned);
                grants.insert(Grant {
                    kind: OriginKind::PortForward,
                    from: whose.to_owned(),
                    to: namespace.clone(),
                    service,
                });
            }
        }
    }
    let name = object.metadata.name.clone().unwrap_or_default();
    Object::Grants(ObjectKey::new(namespace, name), grants)
}
