//! Which resolved addresses a listener may connect to.
//!
//! An IPv6 address can wrap an IPv4 address: mapped, by NAT64, by 6to4. A check of the outer form alone could be
//! bypassed, so every form of an address is checked.

use std::{
    fmt, iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Cloud metadata services, as documented by their providers. They hand out the credentials of the machine.
const METADATA: [IpAddr; 12] = [
    // AWS, Azure, Google Cloud, OpenStack and most others.
    v4([169, 254, 169, 254]),
    // Credentials of AWS ECS tasks and EKS pods.
    v4([169, 254, 170, 2]),
    v4([169, 254, 170, 23]),
    // Scaleway, Tencent Cloud.
    v4([169, 254, 42, 42]),
    v4([169, 254, 0, 23]),
    // Azure WireServer, Alibaba Cloud, Oracle Cloud Classic.
    v4([168, 63, 129, 16]),
    v4([100, 100, 100, 200]),
    v4([192, 0, 0, 192]),
    // Google Cloud, Oracle Cloud, Scaleway, Akamai (Linode).
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]),
    v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe]),
    v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42]),
    v6([0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1]),
];
/// First segments of `fd00:ec2::/32`, the services that AWS offers to its machines: metadata, pod identity, DNS.
const AWS: [u16; 2] = [0xfd00, 0xec2];
/// Ports of kubelets: the API, and the read-only port of old clusters.
const KUBELET: [u16; 2] = [10250, 10255];

const fn v4([a, b, c, d]: [u8; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(of: [u16; 8]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(of[0], of[1], of[2], of[3], of[4], of[5], of[6], of[7]))
}

/// Why an address is not used as a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denial {
    /// Loopback, link-local, unspecified, multicast or broadcast.
    Local,
    /// A metadata service of a cloud.
    Metadata,
    /// A port of kubelets.
    Kubelet,
    /// A node of the fleet, the API server, or an address that the operator protects.
    Cluster,
    /// Outside the networks that the gateway allows.
    Outside,
    /// A listener of the same proxy or of its fleet.
    Loop,
}

impl Denial {
    /// Every reason.
    pub const ALL: [Self; 6] = [Self::Local, Self::Metadata, Self::Kubelet, Self::Cluster, Self::Outside, Self::Loop];

    /// Label value in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "Local",
            Self::Metadata => "Metadata",
            Self::Kubelet => "Kubelet",
            Self::Cluster => "Cluster",
            Self::Outside => "Outside",
            Self::Loop => "Loop",
        }
    }

    /// Position in [`Self::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Denial {
    /// Writes the cause and, where there is one, the remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => {
                "loopback, link-local, multicast and unspecified addresses may not be used from a shared gateway"
            }
            Self::Metadata => {
                "the address is a metadata service of a cloud, which a gateway uses only if \
                 allowedForwards.addressCIDRs names the address itself (as a /32 or /128)"
            }
            Self::Kubelet => {
                "the port is one of kubelets, which a gateway uses only if allowedForwards.addressCIDRs names the \
                 address itself (as a /32 or /128)"
            }
            Self::Cluster => {
                "the address is a node of the gateway, the API server or in the operator's protectedCIDRs, which a \
                 gateway uses only if allowedForwards.addressCIDRs names the address itself (as a /32 or /128)"
            }
            Self::Outside => "the address is outside the gateway's allowedForwards.addressCIDRs",
            Self::Loop => {
                "the address is a listener of this same proxy or of its fleet, which would be a loop; name the real \
                 server"
            }
        })
    }
}

/// Resolved addresses that may be connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Destinations {
    /// Set in gateways: refuse addresses that only the machine, the link or the cloud of the proxy should reach.
    pub refuse_local: bool,
    /// Networks that `address` targets must resolve into; empty allows all.
    pub cidrs: Vec<IpNet>,
}

impl Destinations {
    /// Why this resolved address of an `address` target is refused at these ports, or `None` if it is allowed.
    #[must_use]
    pub fn refuses(&self, ip: IpAddr, ports: &RangeInclusive<u16>) -> Option<Denial> {
        let is_kubelet = || KUBELET.iter().any(|port| ports.contains(port));
        self.refuses_endpoint(ip)
            .or_else(|| (self.refuse_local && is_kubelet() && !self.names(ip)).then_some(Denial::Kubelet))
            .or_else(|| (!self.cidrs.is_empty() && !self.contains(ip)).then_some(Denial::Outside))
    }

    /// Why this endpoint of a Service is refused, or `None` if it is allowed. Allowed networks and nodes do not count:
    /// the cluster decides the addresses of pods.
    #[must_use]
    pub fn refuses_endpoint(&self, ip: IpAddr) -> Option<Denial> {
        let refused = |form| match class(form)? {
            Class::Never => Some(Denial::Local),
            Class::LinkLocal => Some(Denial::Local).filter(|_| !self.names_form(form)),
            Class::Metadata => Some(Denial::Metadata).filter(|_| !self.names_form(form)),
        };
        if self.refuse_local { forms(ip).find_map(refused) } else { None }
    }

    /// Whether one of the networks contains only this address.
    #[must_use]
    pub fn names(&self, ip: IpAddr) -> bool {
        forms(ip).any(|form| self.names_form(form))
    }

    fn names_form(&self, ip: IpAddr) -> bool {
        self.cidrs.iter().any(|net| net.prefix_len() == net.max_prefix_len() && holds(net, ip))
    }

    /// Whether a network contains the address. A NAT64 address leads to its IPv4 address, so either may be contained.
    fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let is_in = |ip: IpAddr| self.cidrs.iter().any(|net| holds(net, ip));
        is_in(ip) || nat64(ip).is_some_and(|inner| is_in(inner.into()))
    }
}

/// Whether one of the networks contains the address in one of its forms.
#[must_use]
pub fn is_within(networks: &[IpNet], ip: IpAddr) -> bool {
    forms(ip).any(|form| networks.iter().any(|net| holds(net, form)))
}

/// Whether a network contains an address in canonical form. A network of mapped addresses stands for the IPv4 network.
fn holds(net: &IpNet, ip: IpAddr) -> bool {
    match (net, ip) {
        (IpNet::V6(net), IpAddr::V4(four)) => net.prefix_len() >= 96 && net.contains(&four.to_ipv6_mapped()),
        _ => net.contains(&ip),
    }
}

/// Classes of addresses that gateways treat specially.
enum Class {
    /// Refused regardless of the allowed networks.
    Never,
    /// Refused unless named.
    LinkLocal,
    /// Refused unless named.
    Metadata,
}

fn class(ip: IpAddr) -> Option<Class> {
    let (is_odd, is_link_local, is_aws) = match ip {
        // 0.0.0.0/8 is "this host"; Linux connects 0.0.0.0 to loopback.
        IpAddr::V4(four) => (four.is_broadcast() || four.octets()[0] == 0, four.is_link_local(), false),
        IpAddr::V6(six) => (false, six.is_unicast_link_local(), six.segments()[..2] == AWS),
    };
    if is_odd || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
        return Some(Class::Never);
    }
    if is_aws || METADATA.contains(&ip) {
        return Some(Class::Metadata);
    }
    is_link_local.then_some(Class::LinkLocal)
}

/// An address in canonical form, and the IPv4 address that it wraps.
pub fn forms(ip: IpAddr) -> impl Iterator<Item = IpAddr> {
    let ip = ip.to_canonical();
    let inner = match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(six) => wrapped(six),
    };
    iter::once(ip).chain(inner.map(IpAddr::V4))
}

fn join(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))
}

/// The IPv4 address behind an address of the well-known NAT64 prefix, `64:ff9b::/96` (RFC 6052).
fn nat64(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(six) = ip else { return None };
    match six.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(join(high, low)),
        _ => None,
    }
}

/// The IPv4 address that an IPv6 address wraps, apart from a mapped one, which is in canonical form already.
fn wrapped(six: Ipv6Addr) -> Option<Ipv4Addr> {
    let (high, low) = match six.segments() {
        // NAT64: the well-known prefix, and prefixes of 96 bits within the one for local use (RFC 8215); translated
        // (RFC 2765), compatible (RFC 4291) and 6to4 (RFC 3056) addresses.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [0, 0, 0, 0, 0xffff | 0, 0, high, low]
        | [0x2002, high, low, ..] => (high, low),
        // Teredo (RFC 4380) inverts the address.
        [0x2001, 0, _, _, _, _, high, low] => (!high, !low),
        _ => return None,
    };
    Some(join(high, low))
}
