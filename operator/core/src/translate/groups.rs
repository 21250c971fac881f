//! Groups of proxies that run the same configuration.

mod sidecars;

use std::{collections::BTreeSet, sync::Arc};

use proxy_api::{Origin, Transport};
use serde::{Serialize, Serializer};

use crate::world::ObjectKey;

pub(crate) use self::sidecars::{Moved, Sidecars};

/// The set of proxies that run the same configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// The one process of `portlane run`.
    Laptop,
    /// The fleet of a `ForwardGateway`.
    Gateway(ObjectKey),
    /// The pods of a namespace that are selected by the same set of sidecar forwards and whose apps have the same
    /// ports.
    Sidecars {
        /// The namespace.
        namespace: String,
        /// Names of the forwards. Shared, because every forward keeps a list of its groups.
        forwards: Arc<BTreeSet<String>>,
        /// Ports that the app listens on, which no listener of the group can claim.
        app_ports: Arc<BTreeSet<(Transport, u16)>>,
    },
}

impl Group {
    /// The forwards that select the pods of a sidecar group; empty for other groups.
    pub(crate) fn selecting(&self) -> impl Iterator<Item = Origin> + '_ {
        let known = match self {
            Self::Sidecars { namespace, forwards, .. } => Some((namespace, forwards)),
            Self::Laptop | Self::Gateway(_) => None,
        };
        known.into_iter().flat_map(|(namespace, forwards)| {
            forwards.iter().map(|name| Origin::port_forward(namespace.clone(), name.clone()))
        })
    }
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Laptop => f.write_str("laptop"),
            Self::Gateway(key) => write!(f, "gateway/{key}"),
            Self::Sidecars { namespace, forwards, app_ports } => {
                let names: Vec<&str> = forwards.iter().map(String::as_str).collect();
                write!(f, "sidecars/{namespace}/{}", names.join("+"))?;
                app_ports.iter().try_for_each(|(transport, port)| write!(f, "/app:{port}/{transport}"))
            }
        }
    }
}

impl Serialize for Group {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
