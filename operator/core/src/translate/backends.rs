//! Resolves the backends of a listener, and checks that the forward may use them.
//!
//! A forward in a gateway of another namespace is a *guest*: it connects with an identity that is not its own. Guests
//! may use less, so that no name and no address bypasses a `ReferenceGrant` or a network policy.

mod loops;
mod running;
mod sets;
mod tunnel;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use crds::ForwardGateway;
use proxy_api::{Backend, Bind, Denial, Destinations, EndpointSet, Origin, Target, forms};

use crate::{
    translate::{
        agents::Admissions,
        claims::Port,
        surroundings,
        validate::{Destination, Placement, ValidBackend, ValidForward, ValidListener, canonical, host_port},
        verdict::{Condition, Reason},
    },
    world::{Grant, ObjectKey, Service, ServiceBackend, World},
};

use self::sets::Contacts;
pub(crate) use self::{loops::local_port, sets::SetName};

/// The backends of a listener, as far as they can be resolved.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    pub(crate) backends: Vec<Backend>,
    pub(crate) endpoints: BTreeMap<String, EndpointSet>,
    /// Why entries, or all endpoints of one, were left out.
    pub(crate) problems: Vec<Condition>,
    /// Why some endpoints of a Service were left out.
    pub(crate) warnings: Vec<String>,
    /// Whether a backend leads to the forward's own fleet: the claims of other forwards decide whether that is a loop.
    pub(crate) may_loop: bool,
    /// Addresses that the gateway refuses while they are those of a node of its fleet or of the API server.
    pub(crate) addresses: Vec<IpAddr>,
}

impl Resolved {
    /// Says why endpoints of a Service were left out. A Service with other endpoints serves the forward, so that is a
    /// warning.
    fn leave_out(&mut self, why: String, is_all: bool) {
        if is_all {
            self.problems.push(Condition::unmet(Reason::AddressNotAllowed, why));
        } else {
            self.warnings.push(why);
        }
    }
}

/// A port that the forward itself listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnPort {
    pub(crate) port: Port,
    pub(crate) bind: Bind,
}

/// The scope in which the backends of one forward are judged.
pub(crate) struct Scope<'a> {
    world: &'a World,
    admissions: &'a Admissions<'a>,
    forward: &'a ValidForward,
    /// The rules by which proxies check resolved addresses.
    pub(crate) destinations: Destinations,
    /// The gateway whose guest the forward is.
    host: Option<&'a ObjectKey>,
    /// The gateway of the forward, if the forward is in the gateway's own namespace.
    home: Option<&'a ObjectKey>,
    /// Whether a proxy of the forward listens on a port.
    listens: &'a dyn Fn(Port) -> bool,
}

impl<'a> Scope<'a> {
    /// The scope of a forward. `listens` says whether one of its proxies listens on a port.
    pub(crate) fn new(
        admissions: &'a Admissions<'a>,
        forward: &'a ValidForward,
        listens: &'a dyn Fn(Port) -> bool,
    ) -> Self {
        let world = admissions.world;
        let gateway = match &forward.placement {
            Placement::Gateway(gateway) => Some(gateway),
            Placement::Sidecar(_) => None,
        };
        // A laptop and all of its addresses belong to its user.
        let judged = gateway.filter(|_| !world.site.is_laptop());
        let (home, host) = match judged {
            Some(gateway) if gateway.namespace == forward.origin.namespace => (Some(gateway), None),
            other => (None, other),
        };
        let destinations = gateway.map(|gateway| destinations_of(world, gateway)).unwrap_or_default();
        Self { world, admissions, forward, destinations, host, home, listens }
    }

    /// Resolves the backends of one listener. `own` lists the ports that the same forward listens on.
    pub(crate) fn resolve(&self, listener: &ValidListener, own: &[OwnPort]) -> Resolved {
        let mut resolved = Resolved::default();
        for entry in &listener.backends {
            match self.target(entry, listener, own, &mut resolved) {
                Ok(target) => resolved.backends.push(Backend {
                    id: entry.to.id(),
                    weight: entry.weight,
                    priority: entry.priority,
                    check_port: entry.check_port,
                    target,
                }),
                Err(problem) => resolved.problems.push(problem),
            }
        }
        resolved
    }

    /// The target that proxies connect to. Permission is checked first: a loop is a mistake, after which the last good
    /// version keeps running, and a refusal must not reveal what is behind a Service.
    fn target(
        &self,
        entry: &ValidBackend,
        listener: &ValidListener,
        own: &[OwnPort],
        resolved: &mut Resolved,
    ) -> Result<Target, Condition> {
        let to = &entry.to;
        let contacts = Contacts { further: listener.further, checked: listener.checked_port(entry) };
        let target = match to {
            Destination::Service { key, port } => {
                self.permit(key)?;
                self.check_loops(to, listener, own, &mut resolved.may_loop)?;
                self.service(listener, key, *port, contacts, resolved)?
            }
            Destination::Address { host, port } => Target::Address { host: host.clone(), port: *port },
            Destination::Local { port } => {
                self.check_loops(to, listener, own, &mut resolved.may_loop)?;
                return Ok(Target::Address { host: "127.0.0.1".to_owned(), port: *port });
            }
            Destination::Tunnel { agent, host, port } => {
                return self.tunnel(listener.transport_out(), agent, host, *port, contacts);
            }
        };
        // The host of an `ExternalName` Service is checked like a host that the forward itself names.
        let (named, port) = match target {
            Target::Address { host, port } => (canonical(&host), port),
            other @ (Target::Endpoints(_) | Target::Tunnel { .. }) => return Ok(other),
        };
        // Checks compare names without the dot of an absolute name.
        let host = named.trim_end_matches('.').to_owned();
        let target = self.address(&host, named, port, contacts)?;
        self.check_loops(&Destination::Address { host: host.clone(), port }, listener, own, &mut resolved.may_loop)?;
        self.check_address(&host, port, contacts, resolved);
        Ok(target)
    }

    /// Checks a host and its ports, as far as that is possible before the host is resolved. `named` is the host with the
    /// dot of an absolute name, if it has one.
    fn address(&self, host: &str, mut named: String, port: u16, contacts: Contacts) -> Result<Target, Condition> {
        let refused = |why: &dyn Display| not_allowed(host, port, why);
        if let Some(gateway) = self.host.filter(|_| self.destinations.cidrs.is_empty()) {
            return Err(refused(&closed(gateway)));
        }
        match host.parse::<IpAddr>() {
            Ok(ip) => {
                let mut ports = contacts.ports(port);
                if let Some(denial) = ports.find_map(|ports| self.refuses(ip, &ports)) {
                    return Err(refused(&denial));
                }
            }
            Err(_) if self.host.is_some() => {
                if loops::is_cluster_name(host) {
                    return Err(refused(
                        &"the name belongs to the cluster's DNS: name the Service in the field service, which needs a \
                          ReferenceGrant if the Service is in another namespace",
                    ));
                }
                // The search list of the gateway's pods would complete a short name to a Service of the cluster.
                if !named.ends_with('.') {
                    named.push('.');
                }
            }
            Err(_) => {}
        }
        Ok(Target::Address { host: named, port })
    }

    /// Says that proxies refuse a named address if it is that of a node of the fleet or of the API server. The target
    /// stays: nodes of a fleet come and go, and no listener closes because of that.
    fn check_address(&self, host: &str, port: u16, contacts: Contacts, resolved: &mut Resolved) {
        let (Placement::Gateway(gateway), Ok(ip)) = (&self.forward.placement, host.parse::<IpAddr>()) else { return };
        if !self.destinations.refuse_local || self.destinations.names(ip) {
            return;
        }
        resolved.addresses.extend(forms(ip));
        if contacts.ports(port).any(|ports| surroundings::protects(self.world, gateway, ip, &ports)) {
            resolved.problems.push(not_allowed(host, port, &Denial::Cluster));
        }
    }

    /// Why a named address is refused at these ports, as far as that depends on settings.
    fn refuses(&self, ip: IpAddr, ports: &RangeInclusive<u16>) -> Option<Denial> {
        let Destinations { refuse_local: is_gateway, .. } = &self.destinations;
        let is_protected = || *is_gateway && self.world.protected.contains(ip) && !self.destinations.names(ip);
        self.destinations.refuses(ip, ports).or_else(|| is_protected().then_some(Denial::Cluster))
    }

    fn permit(&self, service: &ObjectKey) -> Result<(), Condition> {
        let from = &self.forward.origin;
        if self.world.site.is_laptop() || permitted(self.world, from, service) {
            return Ok(());
        }
        // The message must not reveal whether the Service exists.
        let message = format!(
            "Service {service} is in another namespace and no ReferenceGrant there admits {}s of namespace '{}'; create \
             a ReferenceGrant, or allow all Services with the chart value allowAllServices",
            from.kind, from.namespace
        );
        Err(Condition::unmet(Reason::RefNotPermitted, message))
    }

    fn service(
        &self,
        listener: &ValidListener,
        key: &ObjectKey,
        port: u16,
        contacts: Contacts,
        resolved: &mut Resolved,
    ) -> Result<Target, Condition> {
        let (world, laptop) = (self.world, self.world.site.is_laptop());
        let not_found = |message: String| Err(Condition::unmet(Reason::BackendNotFound, message));
        let is_range = listener.further > 0;
        let transport = listener.transport_out();
        if laptop
            && let Some(why) =
                world.site.unreachable(&ServiceBackend { service: key.clone(), port, transport, is_range })
        {
            return not_found(why.to_owned());
        }
        match world.services.get(key) {
            Some(Service::External { host, port: other }) => {
                return Ok(Target::Address { host: host.clone(), port: other.unwrap_or(port) });
            }
            Some(Service::Portless(_)) if !is_range => {
                return not_found(format!(
                    "Service {key} has no TCP or UDP port: add port {port} to the Service; only a port range (endPort) \
                     works without"
                ));
            }
            Some(Service::Cluster(_) | Service::Portless(_)) => {}
            None if laptop => {
                return not_found(format!(
                    "Service {key} cannot be resolved on a laptop: give its address with --resolve {}.{}=HOST[:PORT]",
                    key.name, key.namespace
                ));
            }
            None => return not_found(format!("Service {key} does not exist")),
        }
        let range = is_range.then_some(0);
        let mut name =
            SetName { service: key.clone(), port, transport, range, checked: None, host: None, is_own: false };
        let Some(mut set) = name.endpoints(world) else {
            return not_found(format!("Service {key} has no port {port}/{transport}"));
        };
        if let Some(gateway) = self.judge_of(key) {
            name.is_own = self.host.is_none();
            (name.host, name.range) = (Some(gateway.clone()), range.map(|_| listener.further));
            name.checked = contacts.checked;
            let used = name.endpoints(world).unwrap_or_default();
            if let Some(why) = self.left_out(key, (&set, &used), gateway, contacts) {
                resolved.leave_out(why, used.endpoints.is_empty());
            }
            set = used;
        }
        resolved.endpoints.insert(name.to_string(), set);
        Ok(Target::Endpoints(name.to_string()))
    }

    /// The gateway whose address rules remove endpoints from the sets of a Service. Forwards of the gateway's own
    /// namespace share the plain set while pods back all endpoints.
    fn judge_of(&self, service: &ObjectKey) -> Option<&'a ObjectKey> {
        self.host.or_else(|| self.home.filter(|_| self.world.podless.contains_key(service)))
    }

    /// How many endpoints of a Service may not be used, with an example, and why; `None` if all are used. They have no
    /// pod: those of pods are not checked.
    fn left_out(
        &self,
        service: &ObjectKey,
        (all, used): (&EndpointSet, &EndpointSet),
        gateway: &ObjectKey,
        contacts: Contacts,
    ) -> Option<String> {
        if all.endpoints.len() == used.endpoints.len() {
            return None;
        }
        let addresses = |set: &EndpointSet| -> BTreeSet<SocketAddr> {
            set.endpoints.iter().map(|endpoint| endpoint.address).collect()
        };
        let (all, used) = (addresses(all), addresses(used));
        let example = all.difference(&used).next()?;
        let why = if self.host.is_some() && self.destinations.cidrs.is_empty() {
            closed(gateway)
        } else {
            let denial = contacts.ports(example.port()).find_map(|ports| self.refuses(example.ip(), &ports));
            // Settings do not refuse it, so a node of the fleet or the API server has the address.
            denial.unwrap_or(Denial::Cluster).to_string()
        };
        // The number of all endpoints is not named, because the verdict would change with every pod.
        let refused = all.len() - used.len();
        Some(format!(
            "{refused} of the endpoints of Service {service} may not be used, such as {example}, which has no pod, so \
             the rules for addresses apply: {why}"
        ))
    }
}

fn not_allowed(host: &str, port: u16, why: &dyn Display) -> Condition {
    Condition::unmet(Reason::AddressNotAllowed, format!("backend {}: {why}", host_port(host, port)))
}

/// Why guests of a gateway without networks may not use addresses.
fn closed(gateway: &ObjectKey) -> String {
    format!(
        "ForwardGateway {gateway} lets forwards of other namespaces use addresses only within its \
         spec.allowedForwards.addressCIDRs, and has none: ask its owner to name the networks, or use a gateway of your \
         own namespace"
    )
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

/// The destinations that proxies of a gateway may connect to.
fn destinations_of(world: &World, gateway: &ObjectKey) -> Destinations {
    // A laptop belongs to its user: no gateway of the manifests protects or limits it.
    if world.site.is_laptop() {
        return Destinations::default();
    }
    let allowed = world.gateways.get(gateway).and_then(|gateway| gateway.spec.allowed_forwards.as_ref());
    let cidrs = allowed.map(|allowed| allowed.address_cidrs.as_slice()).unwrap_or_default();
    Destinations { refuse_local: true, cidrs: cidrs.iter().filter_map(|cidr| cidr.0.parse().ok()).collect() }
}
