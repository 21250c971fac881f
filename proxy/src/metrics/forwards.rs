//! Series of forwards and of namespaces, over all their listeners: limits and shares.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use prometheus_client::encoding::DescriptorEncoder;

use super::{family, origin_labels};
use crate::{core::limits::session_room::SessionRoom, shared::Shared};

/// Limits belong to the forward, so only its first listener is shown.
pub(super) fn limits_text(out: &mut DescriptorEncoder<'_>, all: &[Arc<Shared>]) -> Result<(), std::fmt::Error> {
    let queued =
        first_of_each_limiter(all).map(|shared| (origin_labels(&shared.id.origin), shared.limiter.counts().1 as u64));
    let help = "Connections that wait because maxConnections is reached.";
    family(out, ("portlane_connections_queued", help), false, queued)
}

/// The first limited listener of each limiter. A limiter is identified by its address, so that no two are compared.
fn first_of_each_limiter(all: &[Arc<Shared>]) -> impl Iterator<Item = &Arc<Shared>> {
    let mut seen = BTreeSet::new();
    let limited = all.iter().filter(|shared| shared.spec.load().limits.is_some());
    limited.filter(move |shared| seen.insert(Arc::as_ptr(&shared.limiter)))
}

/// Namespaces whose share of the process is limited, by their own limit or because there are others. `room` is the room
/// that a connection would leave to others now.
pub(super) fn shares_text(
    out: &mut DescriptorEncoder<'_>,
    all: &[Arc<Shared>],
    room: SessionRoom,
) -> Result<(), std::fmt::Error> {
    let share = |shared: &Shared| (shared.limiter.share.usage().0, shared.limiter.share.limit(room));
    let shares: BTreeMap<&str, (u32, Option<u32>)> =
        all.iter().map(|shared| (shared.id.origin.namespace.as_str(), share(shared))).collect();
    let of_limited = |value: fn(u32, u32) -> u32| {
        shares.iter().filter_map(move |(namespace, (live, most))| {
            Some((vec![("namespace", *namespace)], u64::from(value(*live, (*most)?))))
        })
    };
    let help = "Live and queued sessions of a namespace whose share of the proxy is limited.";
    family(out, ("portlane_tenant_connections", help), false, of_limited(|live, _| live))?;
    let help = "Limit of live and queued sessions of a namespace in the proxy, as it is now.";
    family(out, ("portlane_tenant_connections_limit", help), false, of_limited(|_, most| most))
}

#[cfg(test)]
mod tests {
    use proxy_api::{Limits, Listener, ListenerId, Origin};

    use super::*;
    use crate::{core::limits::limiter::Limiter, fixtures::template};

    #[test]
    fn the_queue_of_a_forward_is_shown_once_however_many_listeners_it_has() {
        // D22
        let plain = Arc::new(template());
        let limited = Arc::new(Listener { limits: Some(Box::new(Limits::default())), ..(*plain).clone() });
        let limiters: Vec<Arc<Limiter>> = (0..100).map(|_| Arc::default()).collect();
        let listener = |name: &str, of: usize, spec: &Arc<Listener>| {
            let id = ListenerId::new(Origin::port_forward("ns", format!("f{of}")), name);
            Shared::new(id, spec.clone(), Arc::default(), Arc::clone(&limiters[of]))
        };
        let mut all: Vec<Arc<Shared>> = vec![listener("plain", 0, &plain)];
        // A listener that was removed and still has sessions comes after all others.
        for name in ["a", "b", "removed"] {
            all.extend((0..100).map(|of| listener(name, of, &limited)));
        }
        let shown: Vec<&str> = first_of_each_limiter(&all).map(|shared| shared.id.listener.as_str()).collect();
        assert_eq!(shown, ["a"; 100]);
    }
}
