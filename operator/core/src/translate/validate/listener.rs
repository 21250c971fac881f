//! One listener: its checks, and the defaults of its fields.

use crds::{Listener, ListenerStatus};
use proxy_api::{Bind, Origin, Outlier, Policy};

use super::{ValidListener, Violations, backend, durable, guard, health, held::Held, idle, ports, transport};

/// Checks one listener and fills in defaults.
pub(super) fn listener(
    item: &Listener,
    path: &str,
    held: &[ListenerStatus],
    key: &Origin,
    in_gateway: bool,
    found: &mut Violations,
) -> ValidListener {
    match item.port {
        Some(0) => found.add(format!("{path}.port"), "must be 1 to 65535"),
        None if !in_gateway => {
            found.add(format!("{path}.port"), "is required in a sidecar: only a gateway allocates ports");
        }
        _ => {}
    }
    let backends = backend::backends(item, path, key, in_gateway, found);
    ValidListener {
        name: item.name.clone(),
        transport: transport(item.protocol),
        port: item.port,
        further: ports::further(item, path, found),
        names: ports::names(item, path, found),
        held: Held::of(item, held),
        bind: item.bind.map(|bind| match bind {
            crds::Bind::Loopback => Bind::Loopback,
            crds::Bind::All => Bind::All,
        }),
        backends,
        policy: policy(item),
        proxy_protocol: guard::proxy_protocol(item, path, found).map(Box::new),
        health_check: health::check(item, path, found).map(Box::new),
        outlier: outlier(item),
        durable: durable::durable(item, path, found),
        idle: idle::settings(item),
    }
}

fn outlier(item: &Listener) -> Outlier {
    Outlier {
        consecutive_failures: item.outlier.as_ref().and_then(|o| o.consecutive_failures).unwrap_or(5).max(1),
        eject_seconds: item.outlier.as_ref().and_then(|o| o.eject_seconds).unwrap_or(30),
    }
}

fn policy(item: &Listener) -> Policy {
    match item.load_balancing.as_ref().and_then(|balancing| balancing.policy) {
        None | Some(crds::LoadBalancingPolicy::RoundRobin) => Policy::RoundRobin,
        Some(crds::LoadBalancingPolicy::LeastConnections) => Policy::LeastConnections,
        Some(crds::LoadBalancingPolicy::Random) => Policy::Random,
        Some(crds::LoadBalancingPolicy::SourceHash) => Policy::SourceHash,
    }
}
