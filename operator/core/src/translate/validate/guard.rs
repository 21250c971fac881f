//! Validates limits, access lists and PROXY headers.

use crds::Cidr;
use ipnet::IpNet;
use proxy_api::{AcceptHeader, Access, Limits, OnLimit, ProxyProtocol, SendHeader, Transport};

use super::{Violations, transport};

/// Default of `maxQueued`, in connections.
const MAX_QUEUED: u32 = 1000;
/// Default of `queueSeconds`.
const QUEUE_SECONDS: u32 = 5;

pub(super) fn limits(spec: Option<&crds::Limits>, found: &mut Violations) -> Option<Limits> {
    let spec = spec?;
    let numbers = [
        ("maxConnections", spec.max_connections.map(u64::from)),
        ("maxQueued", spec.max_queued.map(u64::from)),
        ("queueSeconds", spec.queue_seconds.map(u64::from)),
        ("maxConnectionsPerSource", spec.max_connections_per_source.map(u64::from)),
        ("newConnectionsPerSecond", spec.new_connections_per_second.map(u64::from)),
        ("bytesPerSecond", spec.bytes_per_second),
        ("maxFlows", spec.max_flows.map(u64::from)),
    ];
    for (name, _) in numbers.iter().filter(|(_, number)| *number == Some(0)) {
        found.add(format!("spec.limits.{name}"), "must not be 0; omit the field for no limit, or set spec.suspend");
    }
    let queues = spec.max_connections.is_some() && spec.on_limit.unwrap_or_default() == crds::OnLimit::Queue;
    let limits = Limits {
        max_connections: spec.max_connections,
        on_limit: if queues { OnLimit::Queue } else { OnLimit::Reject },
        max_queued: if queues { spec.max_queued.unwrap_or(MAX_QUEUED) } else { 0 },
        queue_seconds: if queues { spec.queue_seconds.unwrap_or(QUEUE_SECONDS) } else { 0 },
        max_connections_per_source: spec.max_connections_per_source,
        new_connections_per_second: spec.new_connections_per_second,
        bytes_per_second: spec.bytes_per_second,
        max_flows: spec.max_flows,
    };
    (limits != Limits::default()).then_some(limits)
}

pub(super) fn access(spec: Option<&crds::Access>, found: &mut Violations) -> Option<Access> {
    let spec = spec?;
    let access = Access {
        allow: networks(&spec.allow_cidrs, "spec.access.allowCIDRs", found),
        deny: networks(&spec.deny_cidrs, "spec.access.denyCIDRs", found),
    };
    (access != Access::default()).then_some(access)
}

pub(super) fn proxy_protocol(item: &crds::Listener, path: &str, found: &mut Violations) -> Option<ProxyProtocol> {
    let spec = item.proxy_protocol.as_ref()?;
    let path = format!("{path}.proxyProtocol");
    let protocol = ProxyProtocol {
        accept: match spec.accept.unwrap_or_default() {
            crds::AcceptHeader::Disabled => AcceptHeader::Disabled,
            crds::AcceptHeader::Optional => AcceptHeader::Optional,
            crds::AcceptHeader::Required => AcceptHeader::Required,
        },
        trusted: networks(&spec.trusted_cidrs, &format!("{path}.trustedCIDRs"), found),
        send: match spec.send.unwrap_or_default() {
            crds::SendHeader::Disabled => SendHeader::Disabled,
            crds::SendHeader::V1 => SendHeader::V1,
            crds::SendHeader::V2 => SendHeader::V2,
        },
    };
    let reads = protocol.accept != AcceptHeader::Disabled;
    if reads && protocol.trusted.is_empty() {
        found.add(
            path.clone(),
            "trustedCIDRs is required unless accept is Disabled: otherwise any client could claim any address",
        );
    }
    let is_used = reads || protocol.send != SendHeader::Disabled;
    if is_used && transport(item.protocol) == Transport::Udp {
        found.add(path, "is not for UDP listeners");
    }
    // Trusted networks have no effect if no header is read; dropping them keeps the revision the same.
    is_used.then(|| if reads { protocol } else { ProxyProtocol { trusted: Vec::new(), ..protocol } })
}

/// Parses networks. An invalid network is a violation, because ignoring it could widen access.
fn networks(cidrs: &[Cidr], path: &str, found: &mut Violations) -> Vec<IpNet> {
    if cidrs.len() > 64 {
        found.add(path, "must have at most 64 items");
    }
    let mut networks: Vec<IpNet> = Vec::new();
    for (at, cidr) in cidrs.iter().enumerate() {
        match cidr.0.parse::<IpNet>() {
            Ok(network) => networks.push(canonical(network)),
            Err(_) => found.add(format!("{path}[{at}]"), "must be a network such as 10.0.0.0/8"),
        }
    }
    networks.sort_unstable();
    networks.dedup();
    networks
}

/// Truncates a network to its prefix and converts an IPv4-mapped one to IPv4, because client addresses are compared as
/// IPv4.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(six) = network else { return network.trunc() };
    let mapped = six.addr().to_ipv4_mapped().filter(|_| six.prefix_len() >= 96);
    let four = mapped.and_then(|ip| ipnet::Ipv4Net::new(ip, six.prefix_len() - 96).ok());
    four.map_or(network, IpNet::V4).trunc()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What a TCP listener with this `proxyProtocol` has, without a violation.
    fn valid(spec: &Value) -> Option<ProxyProtocol> {
        let item = json!({"name": "l", "protocol": "TCP", "port": 80, "backends": [], "proxyProtocol": spec});
        let mut found = Violations::default();
        let protocol = proxy_protocol(&serde_json::from_value(item).expect("a listener"), "spec", &mut found);
        assert!(found.0.is_empty(), "{spec}");
        protocol
    }

    #[test]
    fn networks_that_may_send_headers_count_only_if_headers_are_read() {
        let trusted = json!(["10.0.0.0/8"]);
        let sends = ProxyProtocol { send: SendHeader::V2, ..ProxyProtocol::default() };
        assert_eq!(valid(&json!({"send": "V2"})), Some(sends.clone()));
        assert_eq!(valid(&json!({"send": "V2", "trustedCIDRs": trusted})), Some(sends), "the same revision");
        let reads = valid(&json!({"accept": "Required", "trustedCIDRs": trusted})).expect("it reads headers");
        assert_eq!((reads.accept, reads.trusted.len()), (AcceptHeader::Required, 1));
        for idle in [json!({}), json!({"trustedCIDRs": trusted}), json!({"accept": "Disabled", "send": "Disabled"})] {
            assert_eq!(valid(&idle), None, "{idle}");
        }
    }
}
