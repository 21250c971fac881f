//! The addresses of a cluster, by family.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{ClusterError, command};

/// Port of the API server of a node.
const API_PORT: u16 = 6443;

/// The IP family of a cluster: of its node, Pods and Services.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Family {
    /// IPv4 only.
    Four,
    /// IPv6 only, apart from 127.0.0.1, which every network namespace has.
    Six,
    /// Both. IPv4 is the first: Services have it unless they ask for more.
    Dual,
    /// Both. IPv6 is the first.
    DualSix,
}

impl Family {
    /// The addresses of a cluster of this family.
    pub(crate) fn addresses(self) -> &'static Addresses {
        match self {
            Self::Four => &ONLY_IPV4,
            Self::Six => &ONLY_IPV6,
            Self::Dual => &IPV4_FIRST,
            Self::DualSix => &IPV6_FIRST,
        }
    }

    /// Why no node of this family runs on this machine, if the machine is to blame.
    pub fn obstacle(self) -> Option<String> {
        if self == Self::Four {
            return None;
        }
        if !Path::new("/proc/net/if_inet6").exists() {
            return Some("the kernel has no IPv6: /proc/net/if_inet6 is missing".to_owned());
        }
        IPV6_PROBES.iter().find_map(|(what, commands)| {
            // A network namespace of its own, which ends with the commands.
            match command::run("unshare", &["--net", "--", "sh", "-ec", commands]) {
                Ok(_) => None,
                Err(ClusterError::Command { output, .. }) => Some(format!("no {what} here: {output}")),
                Err(error) => Some(crate::chain(&error)),
            }
        })
    }
}

/// What a node of IPv6 needs, with commands that fail without it. The rules have the expressions of kube-proxy.
const IPV6_PROBES: [(&str, &str); 2] = [
    ("IPv6 addresses", "ip link set lo up && ip address add fd00:1::1/64 dev lo"),
    (
        "NAT of IPv6 addresses",
        "nft 'add table ip6 probe
            add chain ip6 probe output { type nat hook output priority -100; }
            add chain ip6 probe postrouting { type nat hook postrouting priority 100; }
            add rule ip6 probe output fib daddr type local meta l4proto udp dnat to [fd00:2::1]:53
            add rule ip6 probe postrouting mark 1 masquerade fully-random'",
    ),
];

/// The addresses of a node, its Pods and its Services.
#[derive(Debug)]
pub(crate) struct Addresses {
    /// Type of the addresses in an `EndpointSlice`.
    pub(super) kind: &'static str,
    /// Address of the node inside its network namespace.
    pub(super) node: IpAddr,
    /// Length of the prefix of the node's network.
    pub(super) node_prefix: u8,
    /// Address in the node's network that nothing has.
    pub(super) router: IpAddr,
    /// Network of the addresses of Pods.
    pub(super) pods: &'static str,
    /// Part of [`Self::pods`] that belongs to the node.
    pub(super) node_pods: &'static str,
    /// Network of the addresses of Services.
    pub(super) services: &'static str,
    /// Address of the API server's own Service, the first of [`Self::services`].
    pub(super) api_service: IpAddr,
    /// Address of the cluster's DNS.
    pub(super) dns_service: IpAddr,
    /// The address that stands for all of them.
    pub(super) all: IpAddr,
    /// Files below `/proc/sys/net` with what is written to them before the network is set up.
    pub(super) sysctls: &'static [(&'static str, &'static str)],
    /// The addresses of the second family, if the cluster has both.
    pub(super) second: Option<&'static Addresses>,
}

impl Addresses {
    /// Where the API server of a node listens.
    pub(crate) fn api(&self) -> SocketAddr {
        (self.node, API_PORT).into()
    }

    /// The addresses of each family, the first family first.
    pub(super) fn families(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.second)
    }

    /// A value of each family, as options take them: separated by a comma.
    pub(super) fn joined<T: ToString>(&self, value: impl Fn(&Self) -> T) -> String {
        self.families().map(|family| value(family).to_string()).collect::<Vec<_>>().join(",")
    }
}

static ONLY_IPV4: Addresses = IPV4;
static ONLY_IPV6: Addresses = IPV6;
static IPV4_FIRST: Addresses = Addresses { second: Some(&ONLY_IPV6), ..IPV4 };
static IPV6_FIRST: Addresses = Addresses { second: Some(&ONLY_IPV4), ..IPV6 };

/// IPv4. The three networks are reserved for tests (RFC 5737, RFC 2544).
const IPV4: Addresses = Addresses {
    kind: "IPv4",
    node: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    node_prefix: 24,
    router: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254)),
    pods: "198.18.0.0/16",
    node_pods: "198.18.0.0/24",
    services: "198.19.0.0/16",
    api_service: IpAddr::V4(Ipv4Addr::new(198, 19, 0, 1)),
    dns_service: IpAddr::V4(Ipv4Addr::new(198, 19, 0, 10)),
    all: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    sysctls: &[("ipv4/ip_forward", "1")],
    second: None,
};

/// IPv6. No network of IPv6 that is reserved for tests has room for three, so these are local ones (RFC 4193), as
/// clusters have them, and none that a cloud uses for its metadata.
const IPV6: Addresses = Addresses {
    kind: "IPv6",
    node: IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1)),
    node_prefix: 64,
    router: IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0xfe)),
    pods: "fd00:2::/56",
    node_pods: "fd00:2::/64",
    services: "fd00:3::/112",
    api_service: IpAddr::V6(Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, 1)),
    dns_service: IpAddr::V6(Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, 0xa)),
    all: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    sysctls: &[
        ("ipv6/conf/all/disable_ipv6", "0"),
        ("ipv6/conf/default/disable_ipv6", "0"),
        ("ipv6/conf/all/forwarding", "1"),
        // Nobody else has these addresses, and the search for duplicates takes a second or two.
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
    ],
    second: None,
};
