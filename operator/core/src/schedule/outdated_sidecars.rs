//! Counts sidecars that a restart of their pods would replace. A sidecar keeps its image until its pod is created
//! again, so after an upgrade someone has to restart the workloads that still have the earlier image.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::world::cache::Cache;

/// Interval between two counts.
const COUNT: Duration = Duration::from_secs(10);
/// Most namespaces with a number of their own: those with the most outdated sidecars.
const NAMESPACES: usize = 64;
/// All other namespaces together. No namespace can have this name.
pub const OTHERS: &str = "(others)";

/// The counter of outdated sidecars in each namespace.
#[derive(Debug, Default)]
pub struct OutdatedSidecars {
    counted: Option<Duration>,
    /// The namespaces of the last count.
    namespaces: BTreeSet<String>,
}

/// A count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Number of outdated sidecars by namespace.
    pub by_namespace: BTreeMap<String, usize>,
    /// Namespaces that the previous count had and this one lacks.
    pub gone: BTreeSet<String>,
}

impl OutdatedSidecars {
    /// Counts the sidecars, if a count is due. A sidecar is outdated if its image differs from `image`, which injection
    /// writes into new pods; unless an annotation of its pod chose the image.
    pub fn tick(&mut self, cache: &Cache, image: &str, now: Duration) -> Option<Counted> {
        if self.counted.is_some_and(|counted| now < counted + COUNT) {
            return None;
        }
        self.counted = Some(now);
        let mut all: BTreeMap<&str, usize> = BTreeMap::new();
        for (pod, info) in &cache.proxy_pods {
            if !info.leaving && info.sidecar_image.as_ref().is_some_and(|own| own != image) {
                *all.entry(&pod.namespace).or_default() += 1;
            }
        }
        let mut ranked: Vec<(&str, usize)> = all.into_iter().collect();
        ranked.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let mut by_namespace: BTreeMap<String, usize> = BTreeMap::new();
        for (rank, (namespace, count)) in ranked.into_iter().enumerate() {
            let label = if rank < NAMESPACES { namespace } else { OTHERS };
            *by_namespace.entry(label.to_owned()).or_default() += count;
        }
        let namespaces: BTreeSet<String> = by_namespace.keys().cloned().collect();
        let before = std::mem::replace(&mut self.namespaces, namespaces);
        let gone = before.difference(&self.namespaces).cloned().collect();
        Some(Counted { by_namespace, gone })
    }

    /// The namespaces of the last count.
    #[must_use]
    pub fn namespaces(&self) -> &BTreeSet<String> {
        &self.namespaces
    }
}
