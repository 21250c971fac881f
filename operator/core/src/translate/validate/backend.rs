//! The backends of a listener, and their destinations.

use std::net::{IpAddr, Ipv6Addr};

use crds::{Backend, Listener};
use proxy_api::Origin;

use super::Violations;
use crate::world::ObjectKey;

/// A backend of a valid listener.
#[derive(Clone, Debug)]
pub(crate) struct ValidBackend {
    pub(crate) weight: u32,
    pub(crate) priority: u32,
    /// The port to check; `None` is the port of the listener's check.
    pub(crate) check_port: Option<u16>,
    pub(crate) to: Destination,
}

/// The destination of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    Service {
        key: ObjectKey,
        port: u16,
    },
    Address {
        host: String,
        port: u16,
    },
    Local {
        port: u16,
    },
    /// A target behind an agent.
    Tunnel {
        agent: ObjectKey,
        host: String,
        port: u16,
    },
}

impl Destination {
    /// The port that the spec names.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Service { port, .. }
            | Self::Address { port, .. }
            | Self::Local { port }
            | Self::Tunnel { port, .. } => *port,
        }
    }

    /// Identity of the backend in the contract with proxies. The dot of an absolute name is no part of it: sessions and
    /// metrics of a backend stay the same when its host gets one.
    pub(crate) fn id(&self) -> String {
        match self {
            Self::Service { key, port } => format!("svc/{key}:{port}"),
            Self::Address { host, port } => format!("addr/{}", host_port(host.trim_end_matches('.'), *port)),
            Self::Local { port } => format!("local:{port}"),
            Self::Tunnel { agent, host, port } => {
                format!("agent/{agent}/{}", host_port(host.trim_end_matches('.'), *port))
            }
        }
    }

    /// The short form for status, without the forward's own namespace.
    pub(crate) fn words(&self, own_namespace: &str) -> String {
        match self {
            Self::Service { key, port } if key.namespace == own_namespace => format!("svc/{}:{port}", key.name),
            Self::Service { .. } | Self::Local { .. } => self.id(),
            Self::Address { host, port } => host_port(host, *port),
            Self::Tunnel { agent, host, port } => format!("agent/{}/{}", agent.name, host_port(host, *port)),
        }
    }
}

/// The Service that the identity of a backend names; `None` for a backend of another kind.
pub(crate) fn service_of_id(id: &str) -> Option<ObjectKey> {
    let (service, _port) = id.strip_prefix("svc/")?.rsplit_once(':')?;
    let (namespace, name) = service.split_once('/')?;
    Some(ObjectKey::new(namespace, name))
}

/// The agent that the identity of a backend names; `None` for a backend of another kind.
pub(crate) fn agent_of_id(id: &str) -> Option<ObjectKey> {
    let mut parts = id.strip_prefix("agent/")?.splitn(3, '/');
    Some(ObjectKey::new(parts.next()?, parts.next()?))
}

/// Formats `HOST:PORT`, with brackets around an IPv6 address.
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
                "exactly one of service, address, local and tunnel must be set, with a port of 1 to 65535",
            );
            continue;
        };
        if in_gateway && matches!(to, Destination::Local { .. }) {
            found.add(format!("{path}.backends[{at}].local"), "needs placement.sidecar");
        }
        if matches!(to, Destination::Tunnel { .. }) {
            tunnelled(item, &format!("{path}.backends[{at}].tunnel"), found);
        }
        if let Destination::Address { host, .. } = &to
            && needs_zone(host)
        {
            found.add(
                format!("{path}.backends[{at}].address.host"),
                &format!(
                    "'{host}' is a link-local address, which needs a zone, and a zone is meaningful on one host only; \
                     use another address of the server, such as one of fd00::/8, or its name"
                ),
            );
        }
        let check_port = checked(item, at, path, found);
        let (weight, priority) = (entry.weight.unwrap_or(1), entry.priority.unwrap_or(0));
        // Sessions and metrics identify backends by these ids, so duplicates are merged and their weights added.
        match backends.iter_mut().find(|other| other.to.id() == to.id()) {
            Some(other) => {
                other.weight = other.weight.saturating_add(weight);
                other.priority = other.priority.min(priority);
                other.check_port = other.check_port.or(check_port);
            }
            None => backends.push(ValidBackend { weight, priority, check_port, to }),
        }
    }
    backends
}

/// Checks that a listener may have a backend behind an agent.
fn tunnelled(item: &Listener, path: &str, found: &mut Violations) {
    if item.end_port.is_some() {
        found.add(path, "is not for a listener with endPort: give each port a listener of its own");
    }
}

/// Whether the kernel refuses to connect to this address without an interface.
fn needs_zone(host: &str) -> bool {
    host.parse::<Ipv6Addr>().is_ok_and(|six| six.is_unicast_link_local())
}

/// Returns the port to check at the endpoints of one backend.
fn checked(item: &Listener, at: usize, path: &str, found: &mut Violations) -> Option<u16> {
    let port = item.backends.get(at)?.health_check_port?;
    if port == 0 {
        found.add(format!("{path}.backends[{at}].healthCheckPort"), "must be 1 to 65535");
    }
    if item.health_check.is_none() {
        found.add(path, "healthCheckPort of a backend needs healthCheck");
    }
    Some(port)
}

fn destination(entry: &Backend, key: &Origin) -> Option<Destination> {
    let to = match (&entry.service, &entry.address, &entry.local, &entry.tunnel) {
        (Some(service), None, None, None) => Destination::Service {
            key: ObjectKey::new(
                service.namespace.clone().unwrap_or_else(|| key.namespace.clone()),
                service.name.clone(),
            ),
            port: service.port,
        },
        (None, Some(address), None, None) => {
            Destination::Address { host: canonical(&address.host), port: address.port }
        }
        (None, None, Some(local), None) => Destination::Local { port: local.port },
        (None, None, None, Some(tunnel)) => Destination::Tunnel {
            agent: ObjectKey::new(key.namespace.clone(), tunnel.agent.clone()),
            host: canonical(&tunnel.host),
            port: tunnel.port,
        },
        _ => return None,
    };
    (to.port() != 0).then_some(to)
}

/// The canonical form of a host, for comparisons. The trailing dot of an absolute name stays, because it changes which
/// names a resolver queries; after an address it means nothing.
pub(crate) fn canonical(host: &str) -> String {
    let relative = host.trim_end_matches('.');
    let is_absolute = relative.len() < host.len() && relative.parse::<IpAddr>().is_err();
    let mut name = relative.to_ascii_lowercase();
    if is_absolute {
        name.push('.');
    }
    name
}

#[cfg(test)]
mod tests {
    use proxy_api::{MAX_INSTANCE_BYTES, MAX_NAME_BYTES};

    use super::*;

    #[test]
    fn an_identity_of_the_longest_names_that_the_api_allows_fits_into_the_contract_with_an_instance() {
        let (namespace, host, port) = ("n".repeat(63), format!("{}.", "h".repeat(252)), 65_535);
        let agent = ObjectKey::new(namespace.clone(), "a".repeat(52));
        for to in [
            Destination::Tunnel { agent: agent.clone(), host: host.clone(), port },
            Destination::Tunnel { agent, host: "fd00:1111:2222:3333:4444:5555:6666:7777".to_owned(), port },
            Destination::Address { host, port },
            Destination::Service { key: ObjectKey::new(namespace, "s".repeat(63)), port },
        ] {
            let id = to.id();
            let agent =
                matches!(&to, Destination::Tunnel { .. }).then(|| ObjectKey::new("n".repeat(63), "a".repeat(52)));
            assert_eq!(agent_of_id(&id), agent);
            assert!(id.len() + "/".len() + MAX_INSTANCE_BYTES <= MAX_NAME_BYTES, "{} bytes: {id}", id.len());
        }
    }
}
