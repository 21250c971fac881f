//! Endpoint sets: their names, and the endpoints of the Service that a name refers to.

use std::{
    collections::BTreeSet,
    fmt, iter,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use proxy_api::{Endpoint, EndpointSet, Surroundings, Transport};

use super::destinations_of;
use crate::{
    translate::{surroundings, validate::transport},
    world::{ObjectKey, Service, World},
};

/// The sign of a range in the name of a set.
const RANGE: char = '+';
/// The sign before the port of the checks in the name of a set for guests.
const CHECKED: char = '?';
/// The sign before the gateway in the name of a set for guests.
const HOST: char = '@';
/// The sign after the gateway in the name of a set for forwards of the gateway's own namespace.
const OWN: char = '!';

/// Identifies an endpoint set. As text: `NAMESPACE/NAME:PORT/TRANSPORT`, then `+` for the pods of a range, then
/// `@NAMESPACE/GATEWAY` for the endpoints that the gateway lets forwards of other namespaces use. With a gateway, the
/// number of ports after the first follows the `+`, and a `?` stands before the port of active checks if that differs
/// from the endpoint's own. A `!` at the end means forwards of the gateway's own namespace, for which a gateway without
/// networks is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetName {
    pub(crate) service: ObjectKey,
    pub(crate) port: u16,
    pub(crate) transport: Transport,
    /// Present for a range: the ports come from the forward, and the Service only selects the pods. The number of ports
    /// after the first for guests, whose endpoints are checked at each port; otherwise 0, so that ranges share a set.
    pub(crate) range: Option<u16>,
    /// The port of active checks, for guests only: their endpoints are judged at that port as well.
    pub(crate) checked: Option<u16>,
    /// The gateway whose rules for addresses apply to endpoints without a pod.
    pub(crate) host: Option<ObjectKey>,
    /// Whether the set is for forwards of the gateway's own namespace, not for guests. Only with `host`.
    pub(crate) is_own: bool,
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.service, self.port, self.transport)?;
        match self.range {
            None => {}
            Some(0) => write!(f, "{RANGE}")?,
            Some(further) => write!(f, "{RANGE}{further}")?,
        }
        self.checked.iter().try_for_each(|port| write!(f, "{CHECKED}{port}"))?;
        self.host.iter().try_for_each(|host| write!(f, "{HOST}{host}"))?;
        if self.is_own { write!(f, "{OWN}") } else { Ok(()) }
    }
}

impl SetName {
    /// Reads a name; `None` for a name of another kind, such as that of a reserved set.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (rest, host) = match text.split_once(HOST) {
            Some((rest, host)) => (rest, Some(host)),
            None => (text, None),
        };
        let own = host.and_then(|host| host.strip_suffix(OWN));
        let (is_own, host) = (own.is_some(), own.or(host));
        let host = match host {
            Some(host) => Some(key(host)?),
            None => None,
        };
        let (rest, checked) = match rest.split_once(CHECKED) {
            Some((rest, port)) => (rest, Some(port.parse().ok()?)),
            None => (rest, None),
        };
        let (rest, range) = match rest.split_once(RANGE) {
            Some((rest, "")) => (rest, Some(0)),
            Some((rest, further)) => (rest, Some(further.parse().ok()?)),
            None => (rest, None),
        };
        let (service, rest) = rest.split_once(':')?;
        let (port, transport) = rest.split_once('/')?;
        let transport = [Transport::Tcp, Transport::Udp].into_iter().find(|it| it.to_string() == transport)?;
        Some(Self { service: key(service)?, port: port.parse().ok()?, transport, range, checked, host, is_own })
    }

    /// The present endpoints; `None` if the Service or its port does not exist.
    pub(crate) fn endpoints(&self, world: &World) -> Option<EndpointSet> {
        let all: EndpointSet = match (world.services.get(&self.service)?, self.range.is_some()) {
            (Service::External { .. }, _) | (Service::Portless(_), false) => return None,
            (service, true) => hosts(service).into_iter().map(|ip| SocketAddr::new(ip, self.port)).collect(),
            (Service::Cluster(ports), false) => {
                let port = ports.iter().find(|it| it.port == self.port && transport(it.protocol) == self.transport)?;
                port.endpoints.iter().copied().collect()
            }
        };
        let podless = world.podless.get(&self.service);
        Some(match (&self.host, podless) {
            (Some(gateway), Some(podless)) => {
                let contacts = Contacts { further: self.range.unwrap_or(0), checked: self.checked };
                allowed_by(world, (gateway, self.is_own), podless, contacts, all)
            }
            (None, _) | (_, None) => all,
        })
    }
}

fn key(text: &str) -> Option<ObjectKey> {
    text.split_once('/').map(|(namespace, name)| ObjectKey::new(namespace, name))
}

/// The pods of a Service.
fn hosts(service: &Service) -> BTreeSet<IpAddr> {
    match service {
        Service::Cluster(ports) => {
            ports.iter().flat_map(|item| &item.endpoints).map(|endpoint| endpoint.address.ip()).collect()
        }
        Service::Portless(hosts) => hosts.clone(),
        Service::External { .. } => BTreeSet::new(),
    }
}

/// The ports of an endpoint to which proxies connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contacts {
    /// Ports after the endpoint's own.
    pub(crate) further: u16,
    /// The port of active checks; `None`: no checks, or the endpoint's own port.
    pub(crate) checked: Option<u16>,
}

impl Contacts {
    /// The ports at an endpoint whose own port is this one.
    pub(crate) fn ports(self, port: u16) -> impl Iterator<Item = RangeInclusive<u16>> {
        let own = port..=port.saturating_add(self.further);
        iter::once(own).chain(self.checked.map(|port| port..=port))
    }
}

/// The endpoints that guests of a gateway, or forwards of its own namespace (`is_own`), may use, at all ports that
/// proxies connect to. An endpoint without a pod was written by a user, and is checked like an `address` backend.
fn allowed_by(
    world: &World,
    (gateway, is_own): (&ObjectKey, bool),
    podless: &BTreeSet<IpAddr>,
    contacts: Contacts,
    all: EndpointSet,
) -> EndpointSet {
    let destinations = destinations_of(world, gateway);
    let around = Surroundings::of(&surroundings::sets(world, gateway));
    let is_allowed = |address: SocketAddr| {
        let ip = address.ip();
        let is_open = |ports: RangeInclusive<u16>| {
            let is_protected = around.protects(ip, &ports) && !destinations.names(ip);
            destinations.refuses(ip, &ports).is_none() && !is_protected
        };
        (is_own || !destinations.cidrs.is_empty()) && contacts.ports(address.port()).all(is_open)
    };
    let may_use = |endpoint: &Endpoint| !podless.contains(&endpoint.address.ip()) || is_allowed(endpoint.address);
    all.endpoints.into_iter().filter(may_use).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_the_set_is_made_of() {
        let service = ObjectKey::new("shop", "pg");
        let (transport, range, checked, host) = (Transport::Tcp, None, None, None);
        let plain = SetName { service, port: 5432, transport, range, checked, host, is_own: false };
        let host = Some(ObjectKey::new("infra", "edge"));
        for (name, text) in [
            (plain.clone(), "shop/pg:5432/TCP"),
            (SetName { range: Some(0), ..plain.clone() }, "shop/pg:5432/TCP+"),
            (SetName { host: host.clone(), ..plain.clone() }, "shop/pg:5432/TCP@infra/edge"),
            (SetName { host: host.clone(), is_own: true, ..plain.clone() }, "shop/pg:5432/TCP@infra/edge!"),
            (SetName { checked: Some(8008), host: host.clone(), ..plain.clone() }, "shop/pg:5432/TCP?8008@infra/edge"),
            (
                SetName { range: Some(9), checked: Some(1), host: host.clone(), ..plain.clone() },
                "shop/pg:5432/TCP+9?1@infra/edge",
            ),
            (SetName { transport: Transport::Udp, range: Some(9), host, ..plain }, "shop/pg:5432/UDP+9@infra/edge"),
        ] {
            assert_eq!(name.to_string(), text);
            assert_eq!(SetName::parse(text), Some(name));
        }
        for text in [
            "fleet",
            "shop/pg",
            "shop/pg:5432",
            "shop/pg:x/TCP",
            "shop/pg:1/SCTP",
            "shop/pg:1/TCP+x",
            "shop/pg:1/TCP?x",
            "pg:1/TCP",
            "",
        ] {
            assert_eq!(SetName::parse(text), None, "{text}");
        }
    }
}
