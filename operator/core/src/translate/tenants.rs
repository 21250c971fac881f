//! The claims and limits that a gateway permits single namespaces: `spec.allowedForwards.tenants`, and the shares of a
//! namespace without an entry.

use crds::{ForwardGateway, Protocol, ProtocolPorts, ServiceType, Tenant};
use proxy_api::{TenantLimits, Transport};

use crate::{
    translate::{
        asked::Asked,
        server_names::covers,
        validate::{Placement, ValidForward, transport},
    },
    world::{ObjectKey, World},
};

/// Ports of a gateway's Service if `spec.service.maxPorts` is absent.
const DEFAULT_MAX_PORTS: u16 = 100;
/// Part of the Service's ports that a namespace without a number of its own may hold: a half, rounded up.
const PART_OF_PORTS: usize = 2;

/// The share of a namespace on a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Most ports.
    pub(crate) max_ports: Option<Quota>,
    /// Most forwards.
    pub(crate) max_forwards: Option<Quota>,
    /// Lists of server names, one for each entry that has such a list.
    hostnames: Vec<Vec<String>>,
}

/// A number that a namespace may not exceed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    pub(crate) most: usize,
    pub(crate) from: Source,
}

/// The source of a quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The entry of `tenants` with this name.
    Tenant(String),
    /// The default: a half of `spec.service.maxPorts`.
    HalfOfService,
}

impl Terms {
    /// Whether the gateway lists a server name for the namespace: every list that the namespace has covers the name.
    pub(crate) fn grants(&self, name: &str) -> bool {
        let lists = |list: &Vec<String>| list.iter().any(|pattern| covers(pattern, name));
        !self.hostnames.is_empty() && self.hostnames.iter().all(lists)
    }
}

/// The share of a forward's namespace on its gateway; `None` if the forward is not on a gateway of the cluster.
pub(crate) fn terms(world: &World, forward: &ValidForward) -> Option<Terms> {
    let (key, gateway) = gateway_of(world, forward)?;
    let Entries { own, .. } = Entries::of(world, gateway, &forward.origin.namespace);
    let smallest = |number: fn(&Tenant) -> Option<u16>| {
        let quotas = own.iter().filter_map(|tenant| Some((usize::from(number(tenant)?), &tenant.name)));
        quotas.min().map(|(most, name)| Quota { most, from: Source::Tenant(name.clone()) })
    };
    let is_foreign = key.namespace != forward.origin.namespace;
    let half = || Some(Quota { most: max_ports(gateway)?.div_ceil(PART_OF_PORTS), from: Source::HalfOfService });
    Some(Terms {
        max_ports: smallest(|tenant| tenant.max_ports).or_else(|| if is_foreign { half() } else { None }),
        max_forwards: smallest(|tenant| tenant.max_forwards),
        hostnames: own
            .iter()
            .map(|tenant| patterns(tenant).collect())
            .filter(|list: &Vec<_>| !list.is_empty())
            .collect(),
    })
}

/// Most ports of a gateway's Service; `None` without a Service.
pub(crate) fn max_ports(gateway: &ForwardGateway) -> Option<usize> {
    let service = gateway.spec.service.as_ref();
    let has_service = service.is_none_or(|service| service.type_ != Some(ServiceType::None));
    let most = service.and_then(|service| service.max_ports).unwrap_or(DEFAULT_MAX_PORTS);
    has_service.then_some(most.into())
}

/// The limits that all listeners of the forward's namespace share in each proxy of its gateway, in the form for durable
/// listeners or for others.
pub(crate) fn limits(world: &World, forward: &ValidForward, is_durable: bool) -> Option<TenantLimits> {
    let (_, gateway) = gateway_of(world, forward)?;
    let Entries { own, .. } = Entries::of(world, gateway, &forward.origin.namespace);
    let max_log_bytes = own.iter().filter_map(|tenant| tenant.max_log_bytes).min().filter(|_| is_durable);
    let max_connections = own.iter().filter_map(|tenant| tenant.max_connections).min();
    let limits = TenantLimits { max_connections, max_log_bytes };
    (limits != TenantLimits::default()).then_some(limits)
}

/// Why the gateway does not permit a port or a server name that listeners of a namespace request, with the remedy.
pub(crate) fn refusal(
    world: &World,
    (key, gateway): (&ObjectKey, &ForwardGateway),
    namespace: &str,
    asked: &[Asked<'_>],
) -> Option<String> {
    // A laptop belongs to one user.
    if world.site.is_laptop() {
        return None;
    }
    let entries = Entries::of(world, gateway, namespace);
    if entries.own.is_empty() && entries.others.is_empty() {
        return None;
    }
    let mut listeners = asked.iter();
    let (listener, what, why) = listeners.find_map(|listener| {
        let ports = || entries.refused_port(listener).map(|(port, why)| (format!("port {port}"), why));
        let names = || entries.refused_name(listener).map(|(name, why)| (format!("hostname {name}"), why));
        ports().or_else(names).map(|(what, why)| (listener, what, why))
    })?;
    let why = match why {
        Refused::NotListed(tenant) => format!("tenant '{}' of the gateway does not list it", tenant.name),
        Refused::Reserved(tenant) => format!("the gateway reserves it for tenant '{}'", tenant.name),
    };
    Some(format!(
        "ForwardGateway {key} does not admit {what} of listener '{}' for namespace '{namespace}': {why}; see its \
         spec.allowedForwards.tenants",
        listener.name
    ))
}

/// The parts of these port ranges that no other tenant of the gateway reserves.
pub(crate) fn unreserved(
    world: &World,
    forward: &ValidForward,
    of: Transport,
    ranges: Vec<(u16, u16)>,
) -> Vec<(u16, u16)> {
    let Some((_, gateway)) = gateway_of(world, forward) else { return ranges };
    let Entries { own, others } = Entries::of(world, gateway, &forward.origin.namespace);
    let listed = |tenants: &[&Tenant]| -> Vec<(u16, u16)> {
        let ports = tenants.iter().flat_map(|tenant| &tenant.ports);
        ports.filter(|ports| transport(ports.protocol) == of).map(bounds).collect()
    };
    let reserved = listed(&own).into_iter().fold(listed(&others), without);
    reserved.into_iter().fold(ranges, without)
}

/// The ranges without the ports of one range.
fn without(ranges: Vec<(u16, u16)>, (from, to): (u16, u16)) -> Vec<(u16, u16)> {
    let cut = |(first, last): (u16, u16)| {
        let below = from.checked_sub(1).map(|end| (first, last.min(end)));
        let above = to.checked_add(1).map(|start| (first.max(start), last));
        [below, above].into_iter().flatten().filter(|(first, last)| first <= last)
    };
    ranges.into_iter().flat_map(cut).collect()
}

/// The gateway of a forward, unless the forward runs on a laptop, whose process belongs to one user.
fn gateway_of<'a>(world: &'a World, forward: &'a ValidForward) -> Option<(&'a ObjectKey, &'a ForwardGateway)> {
    let Placement::Gateway(key) = &forward.placement else { return None };
    world.gateways.get(key).filter(|_| !world.site.is_laptop()).map(|gateway| (key, gateway))
}

/// The entries of a gateway, as seen from one namespace.
struct Entries<'a> {
    /// Entries for the namespace.
    own: Vec<&'a Tenant>,
    /// Entries for other namespaces.
    others: Vec<&'a Tenant>,
}

/// Why a claim is refused, with the entry that decides.
enum Refused<'a> {
    NotListed(&'a Tenant),
    Reserved(&'a Tenant),
}

impl<'a> Entries<'a> {
    /// An entry that names the namespace overrides the entries that select it.
    fn of(world: &World, gateway: &'a ForwardGateway, namespace: &str) -> Self {
        let tenants = gateway.spec.allowed_forwards.as_ref().map(|allowed| allowed.tenants.as_slice());
        let tenants = tenants.unwrap_or_default();
        let names = |tenant: &Tenant| tenant.namespaces.names.iter().any(|name| name.0 == namespace);
        let labels = world.namespaces.get(namespace);
        let selects = |tenant: &Tenant| {
            let selector = tenant.namespaces.selector.as_ref();
            selector.zip(labels).is_some_and(|(selector, labels)| selector.matches(labels))
        };
        let is_named = tenants.iter().any(names);
        let (own, others) = tenants.iter().partition(|tenant| if is_named { names(tenant) } else { selects(tenant) });
        Self { own, others }
    }

    /// The entry that refuses a claim: an own entry with a list that lacks the claim or, if no own entry has a list,
    /// another entry that reserves the claim.
    fn refuses(
        &self,
        has_list: impl Fn(&Tenant) -> bool,
        lists: impl Fn(&Tenant) -> bool,
        reserves: impl Fn(&Tenant) -> bool,
    ) -> Option<Refused<'a>> {
        let mut limited = self.own.iter().copied().filter(|tenant| has_list(tenant)).peekable();
        if limited.peek().is_some() {
            return limited.find(|tenant| !lists(tenant)).map(Refused::NotListed);
        }
        self.others.iter().copied().find(|tenant| reserves(tenant)).map(Refused::Reserved)
    }

    /// The first port of a listener that its namespace may not claim. An allocated port is permitted.
    fn refused_port(&self, listener: &Asked<'_>) -> Option<(u16, Refused<'a>)> {
        let first = listener.port?;
        let is_tls = !listener.hostnames.is_empty();
        let has = |ports: &ProtocolPorts, port: u16| {
            let (first, last) = bounds(ports);
            transport(ports.protocol) == listener.transport && (first..=last).contains(&port)
        };
        let mut ports = first..=first.saturating_add(listener.further);
        ports.find_map(|port| {
            let refused = self.refuses(
                |tenant| !tenant.ports.is_empty(),
                |tenant| tenant.ports.iter().any(|ports| has(ports, port)),
                |tenant| {
                    let is_open = |ports: &ProtocolPorts| is_tls && ports.protocol == Protocol::Tls;
                    tenant.ports.iter().any(|ports| !is_open(ports) && has(ports, port))
                },
            )?;
            Some((port, refused))
        })
    }

    /// The first server name of a listener that its namespace may not claim.
    fn refused_name<'n>(&self, listener: &Asked<'n>) -> Option<(&'n str, Refused<'a>)> {
        listener.hostnames.iter().find_map(|name| {
            let refused = self.refuses(
                |tenant| !tenant.hostnames.is_empty(),
                |tenant| patterns(tenant).any(|pattern| covers(&pattern, name)),
                |tenant| patterns(tenant).any(|pattern| covers(&pattern, name) || covers(name, &pattern)),
            )?;
            Some((name.as_str(), refused))
        })
    }
}

/// The server names of an entry, in lower case as those of listeners.
fn patterns(tenant: &Tenant) -> impl Iterator<Item = String> {
    tenant.hostnames.iter().map(|name| name.0.to_ascii_lowercase())
}

/// The first and the last port of a range.
fn bounds(ports: &ProtocolPorts) -> (u16, u16) {
    (ports.port, ports.end_port.unwrap_or(ports.port).max(ports.port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_cut_out_of_ranges_at_both_ends_and_in_the_middle() {
        let ranges = || vec![(10, 20), (30, 30)];
        for (hole, rest) in [
            ((1, 5), ranges()),
            ((12, 14), vec![(10, 11), (15, 20), (30, 30)]),
            ((20, 30), vec![(10, 19)]),
            ((0, u16::MAX), vec![]),
        ] {
            assert_eq!(without(ranges(), hole), rest, "{hole:?}");
        }
    }
}
