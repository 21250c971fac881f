//! Validates ports, port ranges and server names.

use crds::{Listener, Protocol};

use super::{ValidListener, Violations};

/// Limit on the ports of all listeners of a forward together.
const MOST_PORTS: u32 = 1024;

/// Returns the number of ports after the first.
pub(super) fn further(item: &Listener, path: &str, found: &mut Violations) -> u16 {
    let Some(end) = item.end_port else { return 0 };
    let path = format!("{path}.endPort");
    let Some(further) = item.port.and_then(|port| end.checked_sub(port)) else {
        found.add(path, "needs port, and must not be less than port");
        return 0;
    };
    let backends = item.backends.iter();
    let ports = backends.filter_map(|entry| match (&entry.service, &entry.address, &entry.local) {
        (Some(service), ..) => Some(service.port),
        (_, Some(address), _) => Some(address.port),
        (.., Some(local)) => Some(local.port),
        _ => None,
    });
    if ports.into_iter().any(|port| port.checked_add(further).is_none()) {
        found.add(path, "leads the ports of a backend beyond 65535");
    }
    further
}

/// Returns the server names of a TLS listener in lower case, sorted.
pub(super) fn names(item: &Listener, path: &str, found: &mut Violations) -> Vec<String> {
    let path = format!("{path}.tls");
    let Some(tls) = item.tls.as_ref() else {
        if item.protocol == Protocol::Tls {
            found.add(path, "must be set if, and only if, protocol is TLS");
        }
        return Vec::new();
    };
    if item.protocol != Protocol::Tls {
        found.add(path, "must be set if, and only if, protocol is TLS");
        return Vec::new();
    }
    if tls.hostnames.is_empty() || tls.hostnames.len() > 16 {
        found.add(format!("{path}.hostnames"), "must have 1 to 16 items");
    }
    let mut names: Vec<String> = tls.hostnames.iter().map(|name| name.0.to_ascii_lowercase()).collect();
    if names.iter().any(|name| name.trim_start_matches("*.").contains('*') || name.is_empty()) {
        found.add(format!("{path}.hostnames"), "must be DNS names; a wildcard '*.' is allowed only at the beginning");
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// Checks that names and ports of the listeners are unique, and that there are not too many ports.
pub(super) fn uniqueness(listeners: &[ValidListener], found: &mut Violations) {
    for (at, item) in listeners.iter().enumerate() {
        let earlier = &listeners[..at];
        if earlier.iter().any(|other| other.name == item.name) {
            found.add(format!("spec.listeners[{at}].name"), "is used twice; listener names must be unique");
        }
        if let Some(other) = earlier.iter().find(|other| overlap(item, other)) {
            let message = format!(
                "listeners '{}' and '{}' have the same protocol and port (TLS listeners may, with different hostnames)",
                other.name, item.name
            );
            found.add(format!("spec.listeners[{at}].port"), &message);
        }
    }
    let ports: u32 = listeners.iter().map(|listener| u32::from(listener.further) + 1).sum();
    if ports > MOST_PORTS {
        found.add("spec.listeners", "must not have more than 1024 ports together");
    }
}

fn overlap(one: &ValidListener, other: &ValidListener) -> bool {
    let (Some(a), Some(b)) = (one.port, other.port) else { return false };
    let names_differ =
        !one.names.is_empty() && !other.names.is_empty() && !one.names.iter().any(|name| other.names.contains(name));
    one.transport == other.transport
        && a <= b.saturating_add(other.further)
        && b <= a.saturating_add(one.further)
        && !names_differ
}
