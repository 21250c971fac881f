//! Groups of proxies that run the same configuration.

mod selectors;
mod sidecar_group;
mod sidecars;

use proxy_api::Origin;
use serde::{Serialize, Serializer};

pub use self::sidecar_group::SidecarGroup;
pub(crate) use self::sidecars::{Moved, Sidecars};
use crate::world::ObjectKey;

/// The set of proxies that run the same configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// The one process of `portlane run`.
    Laptop,
    /// The fleet of a `ForwardGateway`.
    Gateway(ObjectKey),
    /// The pods of a namespace that are selected by the same set of sidecar forwards and whose apps have the same
    /// ports.
    Sidecars(SidecarGroup),
}

impl Group {
    /// The forwards that select the pods of a sidecar group; empty for other groups.
    pub(crate) fn selecting(&self) -> impl Iterator<Item = Origin> + '_ {
        self.sidecars().into_iter().flat_map(SidecarGroup::forwards)
    }

    /// The identity of a sidecar group; `None` for other groups.
    pub(crate) fn sidecars(&self) -> Option<&SidecarGroup> {
        match self {
            Self::Sidecars(group) => Some(group),
            Self::Laptop | Self::Gateway(_) => None,
        }
    }
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Laptop => f.write_str("laptop"),
            Self::Gateway(key) => write!(f, "gateway/{key}"),
            Self::Sidecars(group) => write!(f, "sidecars/{group}"),
        }
    }
}

impl Serialize for Group {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
