//! The surroundings of a proxy: its own fleet, to which it must not connect back, and addresses that no backend may
//! have.
//!
//! The addresses are sent as endpoint sets with reserved names. The sets change with the fleet, and the listeners stay
//! unchanged. Names of other sets contain a slash; a proxy that does not know a reserved name ignores the set.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use ipnet::IpNet;

use crate::{EndpointSet, forms, is_within};

/// Name of the endpoint set with the pods of the proxy's own fleet. Port 0 stands for every port on which the proxies
/// listen.
pub const FLEET: &str = "fleet";
/// Name of the endpoint set with the Services in front of the fleet; port 0 as in [`FLEET`].
pub const FRONTS: &str = "fronts";
/// Name of the endpoint set with nodes and the API server, to which `address` targets may not lead unless the gateway
/// names them. Port 0 stands for every port.
pub const PROTECTED: &str = "protected";
/// Name of the endpoint set with the networks that the operator protects like the addresses of [`PROTECTED`]. The port
/// of an entry is the length of the prefix: see [`entry_of`].
pub const PROTECTED_NETWORKS: &str = "protected-networks";
/// Every reserved name.
pub const RESERVED: [&str; 4] = [FLEET, FRONTS, PROTECTED, PROTECTED_NETWORKS];

/// The entry of a network in the set [`PROTECTED_NETWORKS`].
#[must_use]
pub fn entry_of(network: &IpNet) -> SocketAddr {
    SocketAddr::new(network.network(), network.prefix_len().into())
}

/// The network of an entry. An entry without a valid prefix, which no operator sends, still protects its address.
fn network_of(entry: SocketAddr) -> IpNet {
    let network = u8::try_from(entry.port()).ok().and_then(|prefix| IpNet::new(entry.ip(), prefix).ok());
    network.unwrap_or_else(|| entry.ip().into())
}

/// The reserved endpoint sets of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    pods: BTreeSet<IpAddr>,
    /// Pods, and the Services in front of them.
    fleet: BTreeSet<SocketAddr>,
    protected: BTreeSet<SocketAddr>,
    protected_networks: Vec<IpNet>,
}

impl Surroundings {
    /// Reads the reserved sets from `sets`.
    #[must_use]
    pub fn of(sets: &BTreeMap<String, EndpointSet>) -> Self {
        let set = |name: &str| sets.get(name).into_iter().flat_map(|set| &set.endpoints).map(|it| it.address);
        Self {
            pods: set(FLEET).map(|address| address.ip()).collect(),
            fleet: set(FLEET).chain(set(FRONTS)).collect(),
            protected: set(PROTECTED).collect(),
            protected_networks: set(PROTECTED_NETWORKS).map(network_of).collect(),
        }
    }

    /// Whether the address is a pod of the fleet.
    #[must_use]
    pub fn has_pod(&self, ip: IpAddr) -> bool {
        self.pods.contains(&ip.to_canonical())
    }

    /// Whether one of these ports of an address leads back to the fleet. `listens`: the proxies listen on one of them.
    pub fn leads_back(&self, ip: IpAddr, ports: &RangeInclusive<u16>, listens: impl Fn() -> bool) -> bool {
        let has_port = |ip: IpAddr| is_at(&self.fleet, ip, ports) || (is_whole(&self.fleet, ip) && listens());
        !self.fleet.is_empty() && forms(ip).any(has_port)
    }

    /// Whether one of these ports of an address is a node's or the API server's, or the operator protects the address.
    #[must_use]
    pub fn protects(&self, ip: IpAddr, ports: &RangeInclusive<u16>) -> bool {
        forms(ip).any(|ip| is_at(&self.protected, ip, ports) || is_whole(&self.protected, ip))
            || is_within(&self.protected_networks, ip)
    }
}

/// Whether the set has the address with port 0.
fn is_whole(set: &BTreeSet<SocketAddr>, ip: IpAddr) -> bool {
    set.contains(&SocketAddr::new(ip, 0))
}

/// Whether the set has the address with one of these ports.
fn is_at(set: &BTreeSet<SocketAddr>, ip: IpAddr, ports: &RangeInclusive<u16>) -> bool {
    ports.start() <= ports.end()
        && set.range(SocketAddr::new(ip, *ports.start())..=SocketAddr::new(ip, *ports.end())).next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn networks(texts: &[&str]) -> EndpointSet {
        texts.iter().map(|text| entry_of(&text.parse().expect("a network"))).collect()
    }

    fn surroundings() -> Surroundings {
        let set = |texts: &[&str]| -> EndpointSet {
            texts.iter().map(|text| text.parse::<SocketAddr>().expect("an address")).collect()
        };
        Surroundings::of(&BTreeMap::from([
            (FLEET.to_owned(), set(&["10.0.0.1:0", "[2001:db8::1]:0"])),
            (FRONTS.to_owned(), set(&["10.96.0.9:0", "10.96.0.10:80"])),
            (PROTECTED.to_owned(), set(&["192.0.2.5:0", "192.0.2.6:6443"])),
            (PROTECTED_NETWORKS.to_owned(), networks(&["203.0.113.8/29", "2001:db8:9::/48"])),
            ("shop/pg:5432/TCP".to_owned(), set(&["10.0.0.7:5432"])),
        ]))
    }

    #[test]
    fn the_fleet_is_reached_at_its_pods_and_fronts_on_the_ports_on_which_it_listens() {
        let around = surroundings();
        let back =
            |text: &str, ports: RangeInclusive<u16>, listens: bool| around.leads_back(ip(text), &ports, || listens);
        for text in ["10.0.0.1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "2001:db8::1", "10.96.0.9"] {
            assert!(back(text, 5432..=5432, true), "{text}");
            assert!(!back(text, 5432..=5432, false), "{text}: no proxy listens there");
        }
        assert!(back("10.96.0.10", 80..=80, false), "the port is one of the Service that leads to a listener");
        assert!(back("10.96.0.10", 70..=90, false));
        assert!(!back("10.96.0.10", 81..=90, true));
        assert!(!back("10.0.0.7", 5432..=5432, true), "an endpoint of a Service");
        assert!(!Surroundings::default().leads_back(ip("10.0.0.1"), &(1..=1), || true));
    }

    #[test]
    fn only_pods_are_sources_that_return() {
        let around = surroundings();
        assert!(around.has_pod(ip("10.0.0.1")) && around.has_pod(ip("::ffff:10.0.0.1")));
        assert!(!around.has_pod(ip("10.96.0.9")) && !around.has_pod(ip("192.0.2.5")));
    }

    #[test]
    fn nodes_are_protected_at_every_port_and_the_api_server_at_its_own() {
        let around = surroundings();
        assert!(around.protects(ip("192.0.2.5"), &(1..=1)) && around.protects(ip("64:ff9b::192.0.2.5"), &(1..=1)));
        assert!(around.protects(ip("192.0.2.6"), &(6443..=6443)) && around.protects(ip("192.0.2.6"), &(6000..=7000)));
        assert!(!around.protects(ip("192.0.2.6"), &(443..=443)) && !around.protects(ip("10.0.0.1"), &(1..=1)));
    }

    #[test]
    fn networks_of_the_operator_are_protected_at_every_port_in_every_form_and_nothing_beside_them_is() {
        let around = surroundings();
        let protects = |text: &str| [1, u16::MAX].map(|port| around.protects(ip(text), &(port..=port)));
        for text in ["203.0.113.8", "203.0.113.15", "::ffff:203.0.113.9", "64:ff9b::203.0.113.9", "2001:db8:9:ff::1"] {
            assert_eq!(protects(text), [true, true], "{text}");
        }
        for text in ["203.0.113.7", "203.0.113.16", "2001:db8:a::1"] {
            assert_eq!(protects(text), [false, false], "{text}");
        }
    }

    #[test]
    fn operators_of_other_versions_send_fewer_sets_or_some_that_are_not_known() {
        let set = networks(&["203.0.113.8/29"]);
        let later = BTreeMap::from([("protected-later".to_owned(), set.clone())]);
        assert_eq!(Surroundings::of(&later), Surroundings::default());
        let earlier = Surroundings::of(&BTreeMap::from([(PROTECTED.to_owned(), set)]));
        assert!(!earlier.protects(ip("203.0.113.9"), &(1..=1)), "an entry of the other set is no network");
        assert!(earlier.protects(ip("203.0.113.8"), &(29..=29)));
    }

    #[test]
    fn a_network_keeps_its_prefix_on_the_way_and_a_prefix_that_is_none_still_protects_the_address() {
        for text in ["0.0.0.0/0", "203.0.113.8/32", "2001:db8::/128", "::/0"] {
            let network: IpNet = text.parse().expect("a network");
            assert_eq!(network_of(entry_of(&network)), network);
        }
        for (text, network) in [("203.0.113.8:33", "203.0.113.8/32"), ("[2001:db8::1]:443", "2001:db8::1/128")] {
            assert_eq!(network_of(text.parse().expect("an entry")), network.parse::<IpNet>().expect("a network"));
        }
    }
}
