//! The addresses of a cluster.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Port of the API server of a node.
const API_PORT: u16 = 6443;

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
}

impl Addresses {
    /// Where the API server of a node listens.
    pub(crate) fn api(&self) -> SocketAddr {
        (self.node, API_PORT).into()
    }
}

/// IPv4 only. The three networks are reserved for tests (RFC 5737, RFC 2544).
pub(crate) static IPV4: Addresses = Addresses {
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
};
