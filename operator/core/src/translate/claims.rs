//! Claims on ports, decided per group.
//!
//! The key of a claim is (transport, port), plus the server name for a listener with names. A range claims each of its
//! ports and gets all of them or none. A listener keeps a port that its status lists: otherwise editing an old object
//! could take a port from a forward that has served for months. Among newcomers the oldest object wins; ties, and
//! objects without a timestamp, are ordered by namespace and name. Ports are allocated after all explicit requests.
//!
//! In a gateway, no namespace holds more than its share, and no server name lies within a wildcard of another namespace
//! unless the gateway lists the name for its namespace.
//!
//! A [`Ledger`] indexes the claims by port, and by server name where a port is shared: the cost of a change to one
//! forward follows the number of ports it names, and of listeners that want the same.

mod allocation;
mod decision;
mod filled;
mod ledger;
mod namespaces;
mod nesting;
mod taken;
mod wanted;

use std::{collections::BTreeMap, sync::Arc};

use crds::ForwardGateway;
use ipnet::IpNet;
use proxy_api::{AcceptHeader, Bind, Origin, Transport};

use crate::{
    names::TUNNEL_PORT,
    translate::{
        groups::Group,
        tenants::{self, Terms},
        validate::{Placement, Standing, ValidForward, ValidListener},
        verdict::Reason,
    },
    world::{ObjectKey, Site, World},
};

pub(crate) use self::ledger::Ledger;

/// Ephemeral ports, by Linux's default. They are never allocated, because an outgoing connection may hold them.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32768..=60999;
/// Range that ports are allocated from if a gateway sets no `spec.allocation`.
const DEFAULT_ALLOCATION: (u16, u16) = (20000, 29999);

/// Whether an outgoing connection of the machine may hold this port.
pub(crate) fn is_ephemeral(port: u16) -> bool {
    EPHEMERAL.contains(&port)
}

/// Identifies a listener of the world.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ListenerRef {
    pub(crate) forward: Origin,
    /// Position in `spec.listeners`.
    pub(crate) index: usize,
}

/// A port that a listener claims.
pub(crate) type Port = (Transport, u16);

/// PROXY headers that are read before the server name, and the networks trusted to send them.
type Header = Option<(AcceptHeader, Vec<IpNet>)>;

/// Why a listener lost its claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    /// Whether the claim was lost to the app of the pod, not to another listener. If so, status still lists the port as
    /// held.
    pub(crate) to_app: bool,
}

/// The claim that one listener makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    name: String,
    transport: Transport,
    bind: Bind,
    /// Ports after the first.
    further: u16,
    /// Server names; empty claims the whole port.
    names: Vec<String>,
    header: Header,
    request: Request,
    /// Whether status already lists the port.
    standing: Standing,
    /// Whether the spec names the port.
    is_explicit: bool,
    /// Creation time of the forward in nanoseconds since 1970.
    created: Option<i128>,
    /// The share that the gateway permits the namespace; `None` outside of gateways.
    terms: Option<Arc<Terms>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Request {
    /// The port of this number; for a range, its first port.
    Port(u16),
    /// Any port of these ranges, bounds included.
    Any(Vec<(u16, u16)>),
    Impossible(Lost),
}

/// Order in which claims are decided, by the fields in turn: ports held by status first, then ports named by the spec,
/// then the oldest object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    standing: Standing,
    is_implicit: bool,
    is_undated: bool,
    created: Option<i128>,
    listener: ListenerRef,
}

impl Candidate {
    /// The ports that the listener requests by number.
    fn ports(&self) -> impl Iterator<Item = Port> + use<> {
        let (transport, further) = (self.transport, self.further);
        let first = match self.request {
            Request::Port(port) => Some(port),
            Request::Any(_) | Request::Impossible(_) => None,
        };
        first
            .into_iter()
            .flat_map(move |first| first..=first.saturating_add(further))
            .map(move |port| (transport, port))
    }

    fn rank(&self, listener: ListenerRef) -> Rank {
        Rank {
            standing: self.standing,
            is_implicit: !self.is_explicit,
            is_undated: self.created.is_none(),
            created: self.created,
            listener,
        }
    }
}

/// The claims of a forward's listeners, in the order of the spec.
pub(crate) fn candidates(world: &World, forward: &ValidForward) -> Vec<Candidate> {
    let terms = tenants::terms(world, forward).map(Arc::new);
    let candidate = |listener: &ValidListener| {
        let asked = asked_port(&world.site, &forward.origin, listener);
        // The port that status lists, if the spec names the same port or none.
        let held = match &asked {
            Ok(asked) => {
                let held = listener.held.as_ref().map(|held| (held.port, held.standing(listener)));
                held.filter(|(port, standing)| *standing != Standing::New && asked.is_none_or(|asked| asked == *port))
            }
            Err(_) => None,
        };
        // An allocated port stays, even if the listener now needs more than status lists.
        let allocated = listener.held.as_ref().map(|held| held.port);
        Candidate {
            name: listener.name.clone(),
            transport: listener.transport,
            bind: bind_of(world, forward, listener),
            further: listener.further,
            names: listener.names.clone(),
            header: listener.header().map(|(accept, trusted)| (accept, trusted.to_vec())),
            standing: held.map_or(Standing::New, |(_, standing)| standing),
            is_explicit: matches!(asked, Ok(Some(_))),
            created: forward.created,
            terms: terms.clone(),
            request: match asked {
                Err(lost) => Request::Impossible(lost),
                Ok(asked) => {
                    let ranges = || tenants::unreserved(world, forward, listener.transport, allocation(world, forward));
                    let any = || Request::Any(ranges());
                    held.map(|(port, _)| port).or(asked).or(allocated).map_or_else(any, Request::Port)
                }
            },
        }
    };
    forward.listeners.iter().map(candidate).collect()
}

/// The addresses that a listener is bound to.
pub(crate) fn bind_of(world: &World, forward: &ValidForward, listener: &ValidListener) -> Bind {
    let in_fleet = matches!(forward.placement, Placement::Gateway(_)) && !world.site.is_laptop();
    listener.bind.unwrap_or(if in_fleet { Bind::All } else { Bind::Loopback })
}

/// The ranges that the ports of a forward are allocated from.
fn allocation(world: &World, forward: &ValidForward) -> Vec<(u16, u16)> {
    let Placement::Gateway(key) = &forward.placement else { return vec![DEFAULT_ALLOCATION] };
    world.gateways.get(key).map_or_else(|| vec![DEFAULT_ALLOCATION], allocation_of)
}

/// The ranges that a gateway allocates ports from, bounds included.
pub(crate) fn allocation_of(gateway: &ForwardGateway) -> Vec<(u16, u16)> {
    let ranges = gateway.spec.allocation.as_slice();
    if ranges.is_empty() {
        return vec![DEFAULT_ALLOCATION];
    }
    ranges.iter().map(|range| (range.port, range.end_port.unwrap_or(range.port).max(range.port))).collect()
}

/// The port that a listener requests at this site: on a laptop, after `--map` and `--port-offset`.
pub(crate) fn asked_port(site: &Site, key: &Origin, listener: &ValidListener) -> Result<Option<u16>, Lost> {
    let Site::Laptop(laptop) = site else { return Ok(listener.port) };
    let beyond = |message: String| Lost { reason: Reason::Invalid, message, to_app: false };
    let fits = |port: u16| port.checked_add(listener.further).is_some();
    if let Some(port) = laptop.ports.get(&(key.name.clone(), listener.name.clone())) {
        let message = "the mapped port range ends beyond port 65535; map it to a smaller port";
        return if fits(*port) { Ok(Some(*port)) } else { Err(beyond(message.to_owned())) };
    }
    let Some(port) = listener.port else { return Ok(None) };
    match port.checked_add(laptop.port_offset).filter(|port| fits(*port)) {
        Some(port) => Ok(Some(port)),
        None => Err(beyond(format!(
            "port offset {} moves the listener beyond port 65535; use a smaller offset",
            laptop.port_offset
        ))),
    }
}

/// The owner of a port that no listener can claim.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reserved {
    /// The proxy, with the purpose of the port.
    Proxy(String),
    /// The agents that dial this gateway.
    Agents(ObjectKey),
    /// The app beside a sidecar.
    App,
}

/// The rules that decide the claims of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The gateway of the group.
    gateway: Option<ObjectKey>,
    laptop: bool,
    reserved: BTreeMap<Port, Reserved>,
    /// Limit on the ports of the gateway's Service; `None` is unlimited.
    max_ports: Option<usize>,
}

impl Rules {
    pub(crate) fn of(world: &World, group: &Group) -> Self {
        let key = match group {
            Group::Gateway(key) => Some(key),
            Group::Laptop | Group::Sidecars(_) => None,
        };
        let gateway = key.and_then(|key| world.gateways.get(key));
        Self {
            gateway: key.cloned(),
            laptop: world.site.is_laptop(),
            reserved: reserved(world, group),
            max_ports: gateway.filter(|_| !world.site.is_laptop()).and_then(tenants::max_ports),
        }
    }

    fn held_by(&self, (transport, port): Port, loser: &Candidate, holder: &Origin, winner: &Candidate) -> Lost {
        let (name, other) = (&loser.name, &winner.name);
        let shared = loser.names.iter().find(|name| winner.names.contains(name));
        let both_named = !loser.names.is_empty() && !winner.names.is_empty();
        let mut message = match shared {
            Some(host) => {
                format!("hostname {host} on port {port} of listener '{name}' is held by {holder} (listener '{other}')")
            }
            None if both_named => format!(
                "port {port}/{transport} of listener '{name}' is shared with {holder} (listener '{other}'), whose \
                 PROXY protocol settings differ: proxyProtocol.accept and trustedCIDRs must be the same in both"
            ),
            None => format!("port {port}/{transport} of listener '{name}' is held by {holder} (listener '{other}')"),
        };
        message.push_str(if self.laptop {
            "; on a laptop all forwards share one machine: run only one of them with --only, or move one with --map or \
             --port-offset"
        } else if shared.is_some() {
            "; choose another hostname or port, or remove that forward"
        } else {
            "; choose another port or remove that forward"
        });
        Lost { reason: Reason::PortConflict, message, to_app: false }
    }

    /// The gateway of the group, in words.
    fn gateway(&self) -> String {
        self.gateway.as_ref().map_or_else(|| "the gateway".to_owned(), |key| format!("gateway/{key}"))
    }

    fn too_many(&self) -> Lost {
        let message = format!(
            "the Service of {} already has its maximum of {} ports: raise spec.service.maxPorts of the gateway, or use \
             another gateway",
            self.gateway(),
            self.max_ports.unwrap_or(0)
        );
        Lost { reason: Reason::TooManyPorts, message, to_app: false }
    }
}

/// The ports that no listener of a group can claim.
fn reserved(world: &World, group: &Group) -> BTreeMap<Port, Reserved> {
    let of_proxies = |ports: &BTreeMap<u16, String>| {
        ports.clone().into_iter().map(|(port, what)| ((Transport::Tcp, port), Reserved::Proxy(what)))
    };
    let mut reserved: BTreeMap<Port, Reserved> = of_proxies(&world.reserved).collect();
    match group {
        Group::Gateway(key) => {
            reserved.extend(of_proxies(&world.reserved_in_gateways));
            let tunnels = world.gateways.get(key).and_then(|gateway| gateway.spec.tunnels.as_ref());
            let dialled = tunnels.map(|tunnels| (Transport::Tcp, tunnels.port.unwrap_or(TUNNEL_PORT)));
            reserved.extend(dialled.map(|port| (port, Reserved::Agents(key.clone()))));
        }
        Group::Sidecars(group) => reserved.extend(group.app_ports().iter().map(|port| (*port, Reserved::App))),
        Group::Laptop => {}
    }
    reserved
}

fn reserved_port((transport, port): Port, owner: &Reserved) -> Lost {
    let message = match owner {
        Reserved::Proxy(what) => {
            format!("port {port}/{transport} is reserved for the proxy ({what}); choose another port")
        }
        Reserved::Agents(gateway) => format!(
            "port {port}/{transport} is the one that agents dial (spec.tunnels of ForwardGateway {gateway}); choose \
             another port, or have spec.tunnels.port changed"
        ),
        Reserved::App => format!(
            "port {port}/{transport} belongs to the app: a container of the pod declares it (containerPort), or the \
             annotation portlane.dev/app-ports lists it; choose another port, or set portlane.dev/app-ports: -{port}/{transport} in the pod template if the app does not listen on it"
        ),
    };
    Lost { reason: Reason::PortConflict, message, to_app: *owner == Reserved::App }
}

fn no_free_port(transport: Transport) -> Lost {
    let message = format!("no free {transport} port is left in the gateway's allocation ranges; widen spec.allocation");
    Lost { reason: Reason::NoPortAvailable, message, to_app: false }
}
