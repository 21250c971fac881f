//! Who has which port, decided per group.
//!
//! The key of a claim is (transport, port). A listener whose port stands in its status keeps it, so that an old object
//! which is edited cannot take the port of one that has served for months. Among newcomers the oldest object wins;
//! ties, and objects without a timestamp, by namespace and name. Ports are allocated after every explicit request.

use std::collections::{BTreeMap, BTreeSet};

use crds::ServiceType;
use proxy_api::Transport;
use sha2::{Digest, Sha256};

use crate::{
    Group, ObjectKey, Reason, Site, World,
    validate::{ValidForward, ValidListener},
};

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

/// A claim that was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

/// The claims of one group.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    pub(crate) won: BTreeMap<ListenerRef, u16>,
    pub(crate) lost: BTreeMap<ListenerRef, Lost>,
    holders: BTreeMap<(Transport, u16), ListenerRef>,
}

impl Claims {
    /// The listener that has this port.
    pub(crate) fn holder(&self, transport: Transport, port: u16) -> Option<&ListenerRef> {
        self.holders.get(&(transport, port))
    }
}

/// The port that a listener asks for at this site, if it asks for one.
pub(crate) fn asked_port(site: &Site, key: &ObjectKey, listener: &ValidListener) -> Result<Option<u16>, Lost> {
    let Site::Laptop(laptop) = site else { return Ok(listener.port) };
    if let Some(port) = laptop.ports.get(&(key.name.clone(), listener.name.clone())) {
        return Ok(Some(*port));
    }
    let shifted = listener.port.map(|port| port.checked_add(laptop.port_offset));
    match shifted {
        Some(None) => Err(Lost {
            reason: Reason::Invalid,
            message: format!("the port offset {} leads beyond port 65535; use a smaller one", laptop.port_offset),
        }),
        Some(Some(port)) => Ok(Some(port)),
        None => Ok(None),
    }
}

struct Candidate<'a> {
    forward: &'a ValidForward,
    at: usize,
    asked: Option<u16>,
}

impl Candidate<'_> {
    fn listener(&self) -> &ValidListener {
        &self.forward.listeners[self.at]
    }

    /// The port that this listener has by its status: the one it asks for, or one it was given.
    fn held(&self) -> Option<u16> {
        self.listener().held.filter(|held| self.asked.is_none_or(|asked| asked == *held))
    }

    fn rank(&self) -> impl Ord + use<> {
        let forward = self.forward;
        let age = (forward.created.is_none(), forward.created);
        (self.held().is_none(), self.asked.is_none(), age, forward.key.clone(), self.at)
    }
}

/// Decides the claims of one group.
pub(crate) fn claims(
    world: &World,
    group: &Group,
    members: &BTreeSet<ObjectKey>,
    forwards: &BTreeMap<ObjectKey, ValidForward>,
) -> Claims {
    let mut claims = Claims::default();
    let mut candidates: Vec<Candidate<'_>> = Vec::new();
    for forward in members.iter().filter_map(|key| forwards.get(key)) {
        for (at, listener) in forward.listeners.iter().enumerate() {
            match asked_port(&world.site, &forward.key, listener) {
                Ok(asked) => candidates.push(Candidate { forward, at, asked }),
                Err(lost) => {
                    claims.lost.insert((forward.key.clone(), at), lost);
                }
            }
        }
    }
    candidates.sort_by_cached_key(Candidate::rank);
    let most_ports = most_ports(world, group);
    for candidate in candidates {
        let place = (candidate.forward.key.clone(), candidate.at);
        let transport = candidate.listener().transport;
        if let Some(most) = most_ports.filter(|most| claims.won.len() >= *most) {
            claims.lost.insert(place, too_many(group, most));
            continue;
        }
        let decided = match candidate.held().or(candidate.asked) {
            Some(port) => explicit(world, &claims, forwards, &candidate, transport, port),
            None => allocate(world, group, &claims, &candidate, transport),
        };
        match decided {
            Ok(port) => {
                claims.holders.insert((transport, port), place.clone());
                claims.won.insert(place, port);
            }
            Err(lost) => {
                claims.lost.insert(place, lost);
            }
        }
    }
    claims
}

/// The most ports that the Service of this group takes.
fn most_ports(world: &World, group: &Group) -> Option<usize> {
    let Group::Gateway(key) = group else { return None };
    let service = world.gateways.get(key)?.spec.service.as_ref();
    if service.is_some_and(|service| service.type_ == Some(ServiceType::None)) || world.site.is_laptop() {
        return None;
    }
    Some(service.and_then(|service| service.max_ports).unwrap_or(DEFAULT_MAX_PORTS).into())
}

fn too_many(group: &Group, most: usize) -> Lost {
    let message = format!(
        "the Service of {group} has all its {most} ports: raise spec.service.maxPorts of the gateway, or use another one"
    );
    Lost { reason: Reason::TooManyPorts, message }
}

fn explicit(
    world: &World,
    claims: &Claims,
    forwards: &BTreeMap<ObjectKey, ValidForward>,
    candidate: &Candidate<'_>,
    transport: Transport,
    port: u16,
) -> Result<u16, Lost> {
    if let (Transport::Tcp, Some(what)) = (transport, world.reserved.get(&port)) {
        let message = format!("port {port}/{transport} is the proxy's own ({what}); choose another port");
        return Err(Lost { reason: Reason::PortConflict, message });
    }
    let Some((holder, at)) = claims.holder(transport, port) else { return Ok(port) };
    let name = &candidate.listener().name;
    let other = forwards.get(holder).and_then(|forward| forward.listeners.get(*at)).map_or("", |l| l.name.as_str());
    let mut message = format!("port {port}/{transport} of listener '{name}' is held by {holder} (listener '{other}')");
    message.push_str(if world.site.is_laptop() {
        "; on a laptop all forwards share one machine: run one of them with --only, or move it with --map or \
         --port-offset"
    } else {
        "; choose another port or remove that forward"
    });
    Err(Lost { reason: Reason::PortConflict, message })
}

fn allocate(
    world: &World,
    group: &Group,
    claims: &Claims,
    candidate: &Candidate<'_>,
    transport: Transport,
) -> Result<u16, Lost> {
    let ranges = allocation_ranges(world, group, candidate);
    let total: u64 = ranges.iter().map(|(first, last)| u64::from(last - first) + 1).sum();
    let name = format!("{}/{}", candidate.forward.key, candidate.listener().name);
    let start = hash(&name) % total.max(1);
    let free = |port: &u16| {
        !is_ephemeral(*port) && !world.reserved.contains_key(port) && claims.holder(transport, *port).is_none()
    };
    (0..total).map(|step| nth_port(&ranges, (start + step) % total)).find(free).ok_or_else(|| Lost {
        reason: Reason::NoPortAvailable,
        message: format!("no free {transport} port is left in the gateway's allocation ranges; widen spec.allocation"),
    })
}

fn allocation_ranges(world: &World, group: &Group, candidate: &Candidate<'_>) -> Vec<(u16, u16)> {
    let key = match (&candidate.forward.placement, group) {
        (crate::validate::Placement::Gateway(key), _) | (_, Group::Gateway(key)) => Some(key),
        _ => None,
    };
    let spec = key.and_then(|key| world.gateways.get(key)).map(|gateway| gateway.spec.allocation.as_slice());
    let ranges: Vec<(u16, u16)> = spec
        .unwrap_or_default()
        .iter()
        .map(|range| (range.port, range.end_port.unwrap_or(range.port).max(range.port)))
        .collect();
    if ranges.is_empty() { vec![DEFAULT_ALLOCATION] } else { ranges }
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

fn hash(name: &str) -> u64 {
    let digest = Sha256::digest(name.as_bytes());
    digest.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}
