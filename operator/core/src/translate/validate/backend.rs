//! The backends of a listener, and where they lead.

use crds::{Backend, Listener};
use proxy_api::Origin;

use super::Violations;
use crate::world::ObjectKey;

/// A backend of a valid listener.
#[derive(Clone, Debug)]
pub(crate) struct ValidBackend {
    pub(crate) weight: u32,
    pub(crate) priority: u32,
    pub(crate) to: Destination,
}

/// Where a backend leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    Service { key: ObjectKey, port: u16 },
    Address { host: String, port: u16 },
    Local { port: u16 },
}

impl Destination {
    /// Identity of the backend in the contract with proxies.
    pub(crate) fn id(&self) -> String {
        match self {
            Self::Service { key, port } => format!("svc/{key}:{port}"),
            Self::Address { host, port } => format!("addr/{}", host_port(host, *port)),
            Self::Local { port } => format!("local:{port}"),
        }
    }

    /// Short form for status, without the forward's own namespace.
    pub(crate) fn words(&self, own_namespace: &str) -> String {
        match self {
            Self::Service { key, port } if key.namespace == own_namespace => format!("svc/{}:{port}", key.name),
            Self::Service { .. } | Self::Local { .. } => self.id(),
            Self::Address { host, port } => host_port(host, *port),
        }
    }
}

/// The Service that the identity of a backend names; `None` for a backend of another kind.
pub(crate) fn service_of_id(id: &str) -> Option<ObjectKey> {
    let (service, _port) = id.strip_prefix("svc/")?.rsplit_once(':')?;
    let (namespace, name) = service.split_once('/')?;
    Some(ObjectKey::new(namespace, name))
}

/// `HOST:PORT`, with brackets around an IPv6 address.
pub(crate) fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Checks the backends of a listener and fills in defaults.
pub(super) fn backends(
    item: &Listener,
    path: &str,
    key: &Origin,
    in_gateway: bool,
    found: &mut Violations,
) -> Vec<ValidBackend> {
    if item.backends.is_empty() || item.backends.len() > 16 {
        found.add(format!("{path}.backends"), "must have 1 to 16 items");
    }
    let mut backends: Vec<ValidBackend> = Vec::new();
    for (at, entry) in item.backends.iter().enumerate() {
        let Some(to) = destination(entry, key) else {
            found.add(
                format!("{path}.backends[{at}]"),
                "exactly one of service, address and local must be set, with a port of 1 to 65535",
            );
            continue;
        };
        if in_gateway && matches!(to, Destination::Local { .. }) {
            found.add(format!("{path}.backends[{at}].local"), "needs placement.sidecar");
        }
        let (weight, priority) = (entry.weight.unwrap_or(1), entry.priority.unwrap_or(0));
        // Sessions and metrics identify backends by destination, so duplicates are merged and their weights added.
        match backends.iter_mut().find(|other| other.to == to) {
            Some(other) => {
                other.weight = other.weight.saturating_add(weight);
                other.priority = other.priority.min(priority);
            }
            None => backends.push(ValidBackend { weight, priority, to }),
        }
    }
    backends
}

fn destination(entry: &Backend, key: &Origin) -> Option<Destination> {
    let to = match (&entry.service, &entry.address, &entry.local) {
        (Some(service), None, None) => Destination::Service {
            key: ObjectKey::new(
                service.namespace.clone().unwrap_or_else(|| key.namespace.clone()),
                service.name.clone(),
            ),
            port: service.port,
        },
        (None, Some(address), None) => {
            Destination::Address { host: address.host.trim_end_matches('.').to_ascii_lowercase(), port: address.port }
        }
        (None, None, Some(local)) => Destination::Local { port: local.port },
        _ => return None,
    };
    let port = match to {
        Destination::Service { port, .. } | Destination::Address { port, .. } | Destination::Local { port } => port,
    };
    (port != 0).then_some(to)
}
