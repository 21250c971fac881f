//! Backends that lead back to a listener of the same proxy, or of its fleet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proxy_api::{Bind, forms};

use super::{OwnPort, Scope};
use crate::{
    translate::{
        claims::Port,
        validate::{Destination, Placement, ValidListener},
        verdict::{Condition, Reason},
    },
    world::{ObjectKey, reach::Front},
};

fn first_port(to: &Destination) -> u16 {
    match to {
        Destination::Service { port, .. }
        | Destination::Address { port, .. }
        | Destination::Local { port }
        | Destination::Tunnel { port, .. } => *port,
    }
}

/// A port on the host of the proxy itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LocalPort {
    pub(crate) port: u16,
    /// Whether listeners on `Loopback` have the address: they are bound to 127.0.0.1 and `::1`, and to no other address
    /// of 127.0.0.0/8.
    is_bound_by_loopback: bool,
}

impl LocalPort {
    /// Whether a listener with this bind listens at the address.
    pub(crate) fn is_bound_by(self, bind: Bind) -> bool {
        self.is_bound_by_loopback || bind == Bind::All
    }
}

/// The port of a destination on the host of the proxy itself. `None` for Services, agents and other addresses.
pub(crate) fn local_port(to: &Destination) -> Option<LocalPort> {
    match to {
        Destination::Local { port } => Some(LocalPort { port: *port, is_bound_by_loopback: true }),
        Destination::Address { host, port } => {
            let is_bound_by_loopback = match host.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
                // The unspecified address connects to 127.0.0.1 or ::1.
                Ok(ip) if ip.is_loopback() || ip.is_unspecified() => {
                    ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST || ip.is_unspecified()
                }
                Err(_) if host.trim_end_matches('.') == "localhost" => true,
                Ok(_) | Err(_) => return None,
            };
            Some(LocalPort { port: *port, is_bound_by_loopback })
        }
        Destination::Service { .. } | Destination::Tunnel { .. } => None,
    }
}

/// A port of the destination that the same forward listens on.
fn own_port(to: &Destination, listener: &ValidListener, own: &[OwnPort]) -> Option<u16> {
    let local = local_port(to)?;
    let is_own = |port: &u16| {
        let port = (listener.transport_out(), *port);
        own.iter().any(|own| own.port == port && local.is_bound_by(own.bind))
    };
    (local.port..=local.port.saturating_add(listener.further)).find(is_own)
}

/// A Service in front of the fleet of a gateway.
struct Fronted<'a> {
    gateway: &'a ObjectKey,
    service: &'a str,
    front: &'a Front,
}

impl Fronted<'_> {
    /// A port of the destination that leads to a listener of the fleet.
    fn listened(&self, first: u16, listener: &ValidListener, listens: &dyn Fn(Port) -> bool) -> Option<u16> {
        let transport = listener.transport_out();
        let target = |port: u16| (transport, self.front.target(transport, port));
        (first..=first.saturating_add(listener.further)).find(|port| listens(target(*port)))
    }

    fn message(&self, to: &str, listener: &ValidListener, port: u16) -> String {
        let Self { gateway, service, .. } = self;
        format!(
            "backend {to} of listener '{}' leads back to the fleet of ForwardGateway {gateway}, which listens on port \
             {port} of its Service {}/{service}; name the real server",
            listener.name, gateway.namespace
        )
    }
}

impl<'a> Scope<'a> {
    /// Checks that a destination is no listener of the same forward and does not lead to the fleet of its gateway. Sets
    /// `may_loop` if the claims of other forwards decide that.
    pub(super) fn check_loops(
        &self,
        to: &Destination,
        listener: &ValidListener,
        own: &[OwnPort],
        may_loop: &mut bool,
    ) -> Result<(), Condition> {
        let words = || to.words(&self.forward.origin.namespace);
        if let Some(port) = own_port(to, listener, own) {
            let message = format!(
                "backend {} of listener '{}' points back at port {port} of this forward; name the port of the real \
                 server",
                words(),
                listener.name
            );
            return Err(Condition::unmet(Reason::BackendLoop, message));
        }
        let Some(fronted) = self.fronted(to) else { return Ok(()) };
        *may_loop = true;
        match fronted.listened(first_port(to), listener, self.listens) {
            Some(port) => Err(Condition::unmet(Reason::BackendLoop, fronted.message(&words(), listener, port))),
            None => Ok(()),
        }
    }

    /// The Service in front of the forward's own fleet that a destination refers to; `None` if it refers to none.
    fn fronted(&self, to: &Destination) -> Option<Fronted<'a>> {
        let Placement::Gateway(gateway) = &self.forward.placement else { return None };
        let fronts = &self.world.reach.get(gateway)?.fronts;
        let is_it = |service: &str, front: &Front| match to {
            Destination::Service { key, .. } => key.namespace == gateway.namespace && key.name == service,
            Destination::Address { host, .. } => match host.parse::<IpAddr>() {
                Ok(ip) => forms(ip).any(|form| front.addresses.contains(&form)),
                Err(_) => front.hosts.contains(host) || is_name_of(host, service, &gateway.namespace),
            },
            Destination::Local { .. } | Destination::Tunnel { .. } => false,
        };
        let (service, front) = fronts.iter().find(|(service, front)| is_it(service, front))?;
        Some(Fronted { gateway, service, front })
    }
}

/// Whether a DNS name is that of a Service, in full or as the search list of a pod in its namespace completes it.
fn is_name_of(host: &str, service: &str, namespace: &str) -> bool {
    let mut labels = host.split('.');
    labels.next() == Some(service)
        && labels.next().is_none_or(|label| label == namespace)
        && labels.next().is_none_or(|label| label == "svc")
}

/// Whether a DNS name has the form of the cluster's names for Services and pods: `NAME.NAMESPACE.svc`, with a domain or
/// without, and `HOST.NAME.NAMESPACE.svc`.
pub(super) fn is_cluster_name(host: &str) -> bool {
    let labels: Vec<&str> = host.split('.').collect();
    let is = |at: usize, label: &str| labels.get(at).is_some_and(|found| *found == label);
    is(2, "svc") || is(2, "pod") || is(3, "svc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_service_are_known_in_full_and_as_its_namespace_shortens_them() {
        let is = |host: &str| is_name_of(host, "edge", "infra");
        for host in ["edge", "edge.infra", "edge.infra.svc", "edge.infra.svc.cluster.local"] {
            assert!(is(host), "{host}");
        }
        for host in ["other", "edge.shop", "edge.shop.svc", "edge.infra.example.com", "x.edge.infra.svc"] {
            assert!(!is(host), "{host}");
        }
    }

    #[test]
    fn names_of_the_cluster_are_known_by_their_form() {
        for host in ["pg.shop.svc", "pg.shop.svc.cluster.local", "pg-0.pg.shop.svc.k8s", "10-0-0-1.shop.pod.k8s"] {
            assert!(is_cluster_name(host), "{host}");
        }
        for host in ["db.example.com", "svc.example.com", "db.svc.example.com", "pg", "pg.shop"] {
            assert!(!is_cluster_name(host), "{host}");
        }
    }
}
