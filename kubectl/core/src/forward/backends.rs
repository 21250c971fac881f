//! The Services that `kubectl portlane run` attaches for the `service` backends of manifests, and why others are left
//! out.

use std::collections::{BTreeMap, BTreeSet};

use operator_core::{ObjectKey, ServiceBackend};
use proxy_api::Transport;

/// Most Services that are attached at the same time. Each has two watches, which are connections to the API server.
pub const MOST_SERVICES: usize = 100;

/// The Services to attach.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// TCP ports by Service.
    pub services: BTreeMap<ObjectKey, BTreeSet<u16>>,
    /// Backends that are left out, each with a sentence that names the Service and the reason.
    pub refused: BTreeMap<ServiceBackend, String>,
}

/// Decides which Services are attached.
pub fn plan(needed: &BTreeSet<ServiceBackend>) -> Plan {
    let mut plan = Plan::default();
    for backend in needed {
        let is_new = !plan.services.contains_key(&backend.service);
        if let Some(why) = refusal(backend, is_new && plan.services.len() >= MOST_SERVICES) {
            plan.refused.insert(backend.clone(), why);
        } else {
            plan.services.entry(backend.service.clone()).or_default().insert(backend.port);
        }
    }
    plan
}

/// Why a backend is left out; `None` if it is not.
fn refusal(backend: &ServiceBackend, is_beyond: bool) -> Option<String> {
    let ServiceBackend { service, port, transport, is_range } = backend;
    let why = if *transport == Transport::Udp {
        "the API server forwards TCP only"
    } else if *is_range {
        "a range of ports (endPort) cannot be attached"
    } else if is_beyond {
        let why = format!("no more than {MOST_SERVICES} Services are attached: run fewer forwards with --only");
        return Some(unattached(service, *port, &why));
    } else {
        return None;
    };
    let resolve = format!("--resolve {}.{}=HOST[:PORT]", service.name, service.namespace);
    Some(format!(
        "Service {service}, port {port}/{transport}: {why}; give an address that this machine reaches with {resolve}"
    ))
}

/// Formats the reason why a TCP port of a Service is not attached, with the names of both.
pub fn unattached(service: &ObjectKey, port: u16, why: &str) -> String {
    format!("Service {service}, port {port}/TCP: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(name: &str, port: u16) -> ServiceBackend {
        let service = ObjectKey::new("shop", name);
        ServiceBackend { service, port, transport: Transport::Tcp, is_range: false }
    }

    #[test]
    fn ports_of_one_service_are_attached_together_and_datagrams_and_ranges_are_refused() {
        let udp = ServiceBackend { transport: Transport::Udp, ..backend("dns", 53) };
        let range = ServiceBackend { is_range: true, ..backend("sip", 5060) };
        let needed = BTreeSet::from([backend("pg", 5432), backend("pg", 8080), udp.clone(), range.clone()]);
        let plan = plan(&needed);
        let ports = BTreeMap::from([(ObjectKey::new("shop", "pg"), BTreeSet::from([5432, 8080]))]);
        assert_eq!(plan.services, ports);
        assert_eq!(
            plan.refused[&udp],
            "Service shop/dns, port 53/UDP: the API server forwards TCP only; give an address that this machine reaches \
             with --resolve dns.shop=HOST[:PORT]"
        );
        assert!(plan.refused[&range].contains("a range of ports (endPort) cannot be attached; give an address"));
        assert_eq!(plan.refused.len(), 2);
    }

    #[test]
    fn services_beyond_the_most_are_refused_and_ports_of_attached_ones_are_not() {
        let names = (0..=MOST_SERVICES).map(|at| format!("s{at:03}"));
        let needed = names.flat_map(|name| [backend(&name, 1), backend(&name, 2)]).collect();
        let plan = plan(&needed);
        assert_eq!(plan.services.len(), MOST_SERVICES);
        assert!(plan.services.values().all(|ports| ports.len() == 2));
        let refused: Vec<(&str, bool)> =
            plan.refused.iter().map(|(backend, why)| (backend.service.name.as_str(), why.contains("--only"))).collect();
        assert_eq!(refused, [("s100", true), ("s100", true)]);
    }
}
