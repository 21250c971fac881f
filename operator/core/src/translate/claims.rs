//! Who has which port, decided per group.
//!
//! The key of a claim is (transport, port), and a server name where a listener has names; a range claims each of its ports and has
//! all of them or none. A listener whose port stands in its status keeps it, so that an old object
//! which is edited cannot take the port of one that has served for months. Among newcomers the oldest object wins;
//! ties, and objects without a timestamp, by namespace and name. Ports are allocated after every explicit request.
//!
//! A [`Ledger`] keeps the claims by port, so that a change of one forward costs as much as the ports that it names.

mod ledger;

use std::collections::BTreeMap;

use crds::{ForwardGateway, ServiceType};
use ipnet::IpNet;
use proxy_api::{AcceptHeader, Transport};

use crate::{
    translate::{
        groups::Group,
        validate::{Placement, Standing, ValidForward, ValidListener},
        verdict::Reason,
    },
    world::{ObjectKey, Site, World},
};

pub(crate) use self::ledger::Ledger;

/// Outgoing connections are given ports from here (Linux's default), so none of them is ever allocated.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32768..=60999;
/// Ports of a gateway's Service if it does not say.
const DEFAULT_MAX_PORTS: u16 = 100;
/// Where ports come from if a gateway does not say.
const DEFAULT_ALLOCATION: (u16, u16) = (20000, 29999);

/// Whether a connection that the machine makes may hold this port.
pub(crate) fn is_ephemeral(port: u16) -> bool {
    EPHEMERAL.contains(&port)
}

/// A listener, by its object and its place in it.
pub(crate) type ListenerRef = (ObjectKey, usize);

/// What a claim is about.
pub(crate) type Port = (Transport, u16);

/// A claim that was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    /// To the app of the pod, and to no other listener: it holds the port all the same.
    pub(crate) to_app: bool,
}

/// What one listener wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    name: String,
    transport: Transport,
    /// Ports that follow the first.
    further: u16,
    /// Server names; with none it wants the whole port.
    names: Vec<String>,
    /// Whose PROXY headers are read before the name.
    header: Option<(AcceptHeader, Vec<IpNet>)>,
    wish: Wish,
    /// What its status says.
    standing: Standing,
    /// Its spec names this port.
    asked: bool,
    created: Option<i128>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wish {
    Port(u16),
    /// Any of these ranges.
    Any(Vec<(u16, u16)>),
    Impossible(Lost),
}

/// Who comes first: those that hold their port, those that ask for one, the oldest.
type Rank = (Standing, bool, bool, Option<i128>, ListenerRef);

impl Candidate {
    /// The ports that it wants, if it names any.
    fn ports(&self) -> impl Iterator<Item = Port> + use<> {
        let (transport, further) = (self.transport, self.further);
        let first = match self.wish {
            Wish::Port(port) => Some(port),
            Wish::Any(_) | Wish::Impossible(_) => None,
        };
        first
            .into_iter()
            .flat_map(move |first| first..=first.saturating_add(further))
            .map(move |port| (transport, port))
    }

    /// Whether both can have one port: by names, and read the same before them.
    fn shares_with(&self, other: &Self) -> bool {
        !self.names.is_empty()
            && !other.names.is_empty()
            && self.header == other.header
            && !self.names.iter().any(|name| other.names.contains(name))
    }

    fn rank(&self, place: ListenerRef) -> Rank {
        (self.standing, !self.asked, self.created.is_none(), self.created, place)
    }
}

/// What the listeners of a forward want.
pub(crate) fn candidates(world: &World, forward: &ValidForward) -> Vec<Candidate> {
    let candidate = |listener: &ValidListener| {
        let asked = asked_port(&world.site, &forward.key, listener);
        // The port that it has by its status: the one it asks for, or one it was given.
        let held = match &asked {
            Ok(asked) => {
                let held = listener.held.as_ref().map(|held| (held.port, held.standing(listener)));
                held.filter(|(port, standing)| *standing != Standing::New && asked.is_none_or(|asked| asked == *port))
            }
            Err(_) => None,
        };
        // One that it was given stays, also if it wants more of it now.
        let given = listener.held.as_ref().map(|held| held.port);
        Candidate {
            name: listener.name.clone(),
            transport: listener.transport,
            further: listener.further,
            names: listener.names.clone(),
            header: listener.header().map(|(accept, trusted)| (accept, trusted.to_vec())),
            standing: held.map_or(Standing::New, |(_, standing)| standing),
            asked: matches!(asked, Ok(Some(_))),
            created: forward.created,
            wish: match asked {
                Err(lost) => Wish::Impossible(lost),
                Ok(asked) => {
                    let any = || Wish::Any(allocation(world, forward));
                    held.map(|(port, _)| port).or(asked).or(given).map_or_else(any, Wish::Port)
                }
            },
        }
    };
    forward.listeners.iter().map(candidate).collect()
}

/// Where the ports of a forward's gateway come from.
fn allocation(world: &World, forward: &ValidForward) -> Vec<(u16, u16)> {
    let Placement::Gateway(key) = &forward.placement else { return vec![DEFAULT_ALLOCATION] };
    world.gateways.get(key).map_or_else(|| vec![DEFAULT_ALLOCATION], allocation_of)
}

/// Where a gateway's ports come from.
pub(crate) fn allocation_of(gateway: &ForwardGateway) -> Vec<(u16, u16)> {
    let ranges = gateway.spec.allocation.as_slice();
    if ranges.is_empty() {
        return vec![DEFAULT_ALLOCATION];
    }
    ranges.iter().map(|range| (range.port, range.end_port.unwrap_or(range.port).max(range.port))).collect()
}

/// The port that a listener asks for at this site, if it asks for one.
pub(crate) fn asked_port(site: &Site, key: &ObjectKey, listener: &ValidListener) -> Result<Option<u16>, Lost> {
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

/// Whose a port is that no listener can have.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reserved {
    /// The proxy's, for this.
    Proxy(String),
    /// The app's that the proxy sits beside.
    App,
}

/// The rules of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    group: String,
    laptop: bool,
    reserved: BTreeMap<Port, Reserved>,
    /// The most ports that its Service takes.
    most: Option<usize>,
}

impl Terms {
    pub(crate) fn of(world: &World, group: &Group) -> Self {
        let gateway = match group {
            Group::Gateway(key) => world.gateways.get(key),
            _ => None,
        };
        let service = gateway.and_then(|gateway| gateway.spec.service.as_ref());
        let has_service = gateway.is_some() && service.is_none_or(|service| service.type_ != Some(ServiceType::None));
        let most = service.and_then(|service| service.max_ports).unwrap_or(DEFAULT_MAX_PORTS);
        Self {
            group: group.to_string(),
            laptop: world.site.is_laptop(),
            reserved: reserved(world, group),
            most: (has_service && !world.site.is_laptop()).then_some(most.into()),
        }
    }

    fn held_by(&self, (transport, port): Port, loser: &Candidate, holder: &ObjectKey, winner: &Candidate) -> Lost {
        let (name, other) = (&loser.name, &winner.name);
        let shared = loser.names.iter().find(|name| winner.names.contains(name));
        let both_named = !loser.names.is_empty() && !winner.names.is_empty();
        let mut message = match shared {
            Some(host) => {
                format!("hostname {host} on port {port} of listener '{name}' is held by {holder} (listener '{other}')")
            }
            None if both_named => format!(
                "port {port}/{transport} of listener '{name}' is shared with {holder} (listener '{other}'), whose PROXY \
                 protocol settings differ: proxyProtocol.accept and trustedCIDRs must be the same in both"
            ),
            None => format!("port {port}/{transport} of listener '{name}' is held by {holder} (listener '{other}')"),
        };
        message.push_str(if self.laptop {
            "; on a laptop all forwards share one machine: run only one of them with --only, or move one with --map or \
             --port-offset"
        } else {
            "; choose another port or remove that forward"
        });
        Lost { reason: Reason::PortConflict, message, to_app: false }
    }

    fn too_many(&self) -> Lost {
        let message = format!(
            "the Service of {} already has its maximum of {} ports: raise spec.service.maxPorts of the gateway, or use \
             another gateway",
            self.group,
            self.most.unwrap_or(0)
        );
        Lost { reason: Reason::TooManyPorts, message, to_app: false }
    }
}

/// The ports that no listener of a group can have.
fn reserved(world: &World, group: &Group) -> BTreeMap<Port, Reserved> {
    let of_proxies = |ports: &BTreeMap<u16, String>| {
        ports.clone().into_iter().map(|(port, what)| ((Transport::Tcp, port), Reserved::Proxy(what)))
    };
    let mut reserved: BTreeMap<Port, Reserved> = of_proxies(&world.reserved).collect();
    match group {
        Group::Gateway(_) => reserved.extend(of_proxies(&world.reserved_in_gateways)),
        Group::Sidecars { app_ports, .. } => reserved.extend(app_ports.iter().map(|port| (*port, Reserved::App))),
        Group::Laptop => {}
    }
    reserved
}

fn own_port((transport, port): Port, whose: &Reserved) -> Lost {
    let message = match whose {
        Reserved::Proxy(what) => {
            format!("port {port}/{transport} is reserved for the proxy ({what}); choose another port")
        }
        Reserved::App => format!(
            "port {port}/{transport} belongs to the app: a container of the pod declares it (containerPort), the annotation \
             portlane.dev/app-ports lists it, or it was found in use there; choose another port, or set \
             portlane.dev/app-ports: -{port}/{transport} in the pod template if the app does not listen on it"
        ),
    };
    Lost { reason: Reason::PortConflict, message, to_app: *whose == Reserved::App }
}

fn none_left(transport: Transport) -> Lost {
    let message = format!("no free {transport} port is left in the gateway's allocation ranges; widen spec.allocation");
    Lost { reason: Reason::NoPortAvailable, message, to_app: false }
}

/// Ports in these ranges.
fn total(ranges: &[(u16, u16)]) -> u64 {
    ranges.iter().map(|(first, last)| u64::from(last - first) + 1).sum()
}

fn nth_port(ranges: &[(u16, u16)], mut nth: u64) -> u16 {
    for (first, last) in ranges {
        let width = u64::from(last - first) + 1;
        if nth < width {
            return first.saturating_add(u16::try_from(nth).unwrap_or(0));
        }
        nth -= width;
    }
    ranges.first().map_or(0, |range| range.0)
}
