//! A configuration as it was published, and how a group gets from one to the next.

use std::collections::BTreeMap;

use proxy_api::{Configuration, Digest, ListenerId, Version};

/// What one group of proxies is to run, with its place in the order.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The configuration, with its version.
    pub configuration: Configuration,
    /// Its digest.
    pub digest: Digest,
    /// The number under which each listener was published as it is now.
    pub since: BTreeMap<ListenerId, u64>,
}

impl Snapshot {
    /// The snapshot after `previous`; nothing if it would run the same.
    #[must_use]
    pub fn next(previous: Option<&Self>, mut configuration: Configuration, version: &Version) -> Option<Self> {
        if let Some(previous) = previous {
            let before = &previous.configuration;
            if before.listeners == configuration.listeners && before.endpoints == configuration.endpoints {
                return None;
            }
        }
        configuration.version = version.clone();
        let known = |id: &ListenerId| {
            let previous = previous?;
            let same = previous.configuration.listeners.get(id) == configuration.listeners.get(id);
            previous.since.get(id).filter(|_| same).copied()
        };
        let since = configuration.listeners.keys().map(|id| (id.clone(), known(id).unwrap_or(version.number)));
        let since = since.collect();
        let digest = configuration.digest();
        Some(Self { configuration, digest, since })
    }
}
