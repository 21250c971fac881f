//! Resolves the backends of a listener, and checks that the forward may use them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use crds::ForwardGateway;
use proxy_api::{Backend, Destinations, EndpointSet, Origin, Target, Transport};

use crate::{
    translate::{
        validate::{Destination, Placement, ValidForward, ValidListener, transport},
        verdict::{Condition, Reason},
    },
    world::{Grant, ObjectKey, Service, ServicePort, World},
};

/// The backends of a listener, as far as they can be resolved.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    pub(crate) backends: Vec<Backend>,
    pub(crate) endpoints: BTreeMap<String, EndpointSet>,
    /// Why entries were left out.
    pub(crate) problems: Vec<Condition>,
}

/// Resolves the backends of one listener. `own` lists the ports that the same forward listens on.
pub(crate) fn resolve(
    world: &World,
    forward: &ValidForward,
    listener: &ValidListener,
    own: &[(Transport, u16)],
    destinations: &Destinations,
) -> Resolved {
    let mut resolved = Resolved::default();
    for entry in &listener.backends {
        if let Some(port) = own_port(&entry.to, listener, own) {
            resolved.problems.push(looped(&entry.to, port, forward, listener));
            continue;
        }
        let target = match &entry.to {
            Destination::Service { key, port } => {
                service(world, forward, listener, key, *port, &mut resolved.endpoints)
                    .and_then(|target| external(target, forward, listener, own, destinations))
            }
            Destination::Address { host, port } => address(host, *port, destinations),
            Destination::Local { port } => Ok(Target::Address { host: "127.0.0.1".to_owned(), port: *port }),
        };
        match target {
            Ok(target) => resolved.backends.push(Backend {
                id: entry.to.id(),
                weight: entry.weight,
                priority: entry.priority,
                target,
            }),
            Err(problem) => resolved.problems.push(problem),
        }
    }
    resolved
}

/// Checks the host of an `ExternalName` Service like a host that the forward itself names.
fn external(
    target: Target,
    forward: &ValidForward,
    listener: &ValidListener,
    own: &[(Transport, u16)],
    destinations: &Destinations,
) -> Result<Target, Condition> {
    let Target::Address { host, port } = target else { return Ok(target) };
    let to = Destination::Address { host: host.clone(), port };
    match own_port(&to, listener, own) {
        Some(port) => Err(looped(&to, port, forward, listener)),
        None => address(&host, port, destinations),
    }
}

fn looped(to: &Destination, port: u16, forward: &ValidForward, listener: &ValidListener) -> Condition {
    let message = format!(
        "backend {} of listener '{}' points back at port {port} of this forward; name the port of the real server",
        to.words(&forward.origin.namespace),
        listener.name
    );
    Condition::unmet(Reason::BackendLoop, message)
}

/// The port of a destination on the host of the proxy itself. `None` for Services and other addresses.
pub(crate) fn local_port(to: &Destination) -> Option<u16> {
    match to {
        Destination::Local { port } => Some(*port),
        Destination::Address { host, port } => {
            let is_local = match host.parse::<IpAddr>() {
                Ok(ip) => ip.to_canonical().is_loopback() || ip.is_unspecified(),
                Err(_) => host == "localhost",
            };
            is_local.then_some(*port)
        }
        Destination::Service { .. } => None,
    }
}

/// A port of the destination that the same forward listens on.
fn own_port(to: &Destination, listener: &ValidListener, own: &[(Transport, u16)]) -> Option<u16> {
    let first = local_port(to)?;
    (first..=first.saturating_add(listener.further)).find(|port| own.contains(&(listener.transport, *port)))
}

fn address(host: &str, port: u16, destinations: &Destinations) -> Result<Target, Condition> {
    if let Some(why) = host.parse().ok().and_then(|ip| destinations.refuses(ip)) {
        return Err(Condition::unmet(
            Reason::AddressNotAllowed,
            format!("backend {}: {why}", crate::translate::validate::host_port(host, port)),
        ));
    }
    Ok(Target::Address { host: host.to_owned(), port })
}

fn service(
    world: &World,
    forward: &ValidForward,
    listener: &ValidListener,
    key: &ObjectKey,
    port: u16,
    endpoints: &mut BTreeMap<String, EndpointSet>,
) -> Result<Target, Condition> {
    let laptop = world.site.is_laptop();
    if !laptop && !permitted(world, &forward.origin, key) {
        // The message must not reveal whether the Service exists.
        return Err(Condition::unmet(
            Reason::RefNotPermitted,
            format!(
                "Service {key} is in another namespace and no ReferenceGrant there admits PortForwards of namespace \
                 '{}'; create a ReferenceGrant, or allow all Services with the chart value allowAllServices",
                forward.origin.namespace
            ),
        ));
    }
    let not_found = |message: String| Err(Condition::unmet(Reason::BackendNotFound, message));
    match world.services.get(key) {
        Some(Service::External { host, port: other }) => {
            Ok(Target::Address { host: host.clone(), port: other.unwrap_or(port) })
        }
        // For a range the ports come from the forward, and the Service only selects the pods.
        Some(service) if listener.further > 0 => {
            let name = format!("{}{RANGE_SUFFIX}", set_name(key, port, listener.transport));
            endpoints.insert(name.clone(), pods_at(service, port));
            Ok(Target::Endpoints(name))
        }
        Some(Service::Portless(_)) => not_found(format!(
            "Service {key} has no TCP or UDP port: add port {port} to the Service; only a port range (endPort) works \
             without"
        )),
        Some(Service::Cluster(ports)) => {
            let same = |item: &&ServicePort| item.port == port && transport(item.protocol) == listener.transport;
            let Some(found) = ports.iter().find(same) else {
                return not_found(format!("Service {key} has no port {port}/{}", listener.transport));
            };
            let name = set_name(key, port, listener.transport);
            endpoints.insert(name.clone(), set_of(found));
            Ok(Target::Endpoints(name))
        }
        None if laptop => not_found(format!(
            "Service {key} cannot be resolved on a laptop: give its address with --resolve {}.{}=HOST[:PORT]",
            key.name, key.namespace
        )),
        None => not_found(format!("Service {key} does not exist")),
    }
}

/// Suffix of the name of an endpoint set for a range.
const RANGE_SUFFIX: &str = "+";

/// The name of an endpoint set: `NAMESPACE/NAME:PORT/TRANSPORT`.
fn set_name(service: &ObjectKey, port: u16, transport: Transport) -> String {
    format!("{service}:{port}/{transport}")
}

/// The pods of a Service, each with this port.
fn pods_at(service: &Service, port: u16) -> EndpointSet {
    let ips: BTreeSet<IpAddr> = match service {
        Service::Cluster(ports) => {
            ports.iter().flat_map(|item| &item.endpoints).map(|endpoint| endpoint.address.ip()).collect()
        }
        Service::Portless(hosts) => hosts.clone(),
        Service::External { .. } => BTreeSet::new(),
    };
    ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
}

fn set_of(port: &ServicePort) -> EndpointSet {
    port.endpoints.iter().copied().collect()
}

/// The Service of an endpoint set, by the name of the set.
pub(crate) fn service_of(set: &str) -> Option<ObjectKey> {
    let (namespace, rest) = set.split_once('/')?;
    let (name, _) = rest.split_once(':')?;
    Some(ObjectKey::new(namespace, name))
}

/// The current endpoint set of this name; `None` if the Service or its port does not exist.
pub(crate) fn endpoint_set(world: &World, set: &str) -> Option<EndpointSet> {
    let key = service_of(set)?;
    let service = world.services.get(&key)?;
    if let Some(plain) = set.strip_suffix(RANGE_SUFFIX) {
        let (port, _) = plain.rsplit_once(':')?.1.split_once('/')?;
        return Some(pods_at(service, port.parse().ok()?)).filter(|_| !matches!(service, Service::External { .. }));
    }
    let Service::Cluster(ports) = service else { return None };
    let is_named = |item: &&ServicePort| set_name(&key, item.port, transport(item.protocol)) == set;
    ports.iter().find(is_named).map(set_of)
}

fn permitted(world: &World, from: &Origin, to: &ObjectKey) -> bool {
    let grants = |grant: &Grant| {
        grant.kind == from.kind
            && grant.from == from.namespace
            && grant.to == to.namespace
            && grant.service.as_ref().is_none_or(|service| *service == to.name)
    };
    from.namespace == to.namespace || world.any_service || world.grants.iter().any(grants)
}

/// An invalid network of a gateway. Ignoring the network could widen access, so the gateway admits no forward until the
/// network is fixed.
pub(crate) fn bad_cidr(gateway: &ForwardGateway) -> Option<&str> {
    let allowed = gateway.spec.allowed_forwards.as_ref()?;
    let mut cidrs = allowed.address_cidrs.iter().map(|cidr| cidr.0.as_str());
    cidrs.find(|cidr| cidr.parse::<ipnet::IpNet>().is_err())
}

/// The destinations that a proxy may connect to for this forward.
pub(crate) fn destinations(world: &World, forward: &ValidForward) -> Destinations {
    let Placement::Gateway(key) = &forward.placement else { return Destinations::default() };
    let allowed = world.gateways.get(key).and_then(|gateway| gateway.spec.allowed_forwards.as_ref());
    let cidrs = allowed.map(|allowed| allowed.address_cidrs.as_slice()).unwrap_or_default();
    Destinations {
        // A laptop belongs to its user, so its own ports need no protection.
        refuse_local: !world.site.is_laptop(),
        cidrs: cidrs.iter().filter_map(|cidr| cidr.0.parse().ok()).collect(),
    }
}
