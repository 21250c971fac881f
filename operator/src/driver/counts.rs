//! Gauges for the counts of a term's schedules.

use std::time::Duration;

use operator_core::schedule::cut_off::Counted;

use super::Driver;

impl Driver {
    /// Counts fleets by the state of their rollout.
    pub(super) fn count_fleets(&self) {
        for (state, count) in self.schedules.gateways.counts().by_state() {
            self.metrics.fleets.get_or_create(&[("state", state)]).set(number(count));
        }
    }

    /// Counts outdated sidecars by namespace. A namespace without any has no series.
    pub(super) fn count_sidecars(&mut self, now: Duration) {
        let Some(counted) = self.schedules.sidecars.tick(&self.cache, &self.fleets.image, now) else { return };
        for (namespace, count) in counted.by_namespace {
            self.metrics.sidecars_outdated.get_or_create(&[("namespace", namespace)]).set(number(count));
        }
        for namespace in counted.gone {
            self.metrics.sidecars_outdated.remove(&[("namespace", namespace)]);
        }
    }

    /// Reports the number of proxies that a new CA has cut off. The first one is logged.
    pub(super) fn cut_off(&self, Counted { count, first }: Counted) {
        self.metrics.cut_off.set(number(count));
        if let Some(first) = first {
            tracing::warn!(
                count,
                %first,
                "proxies are older than the operator's CA and do not trust it: replace their pods (docs/security.md)"
            );
        }
    }

    /// Removes the series of outdated sidecars: the next leader counts.
    pub(super) fn forget_sidecars(&self) {
        for namespace in self.schedules.sidecars.namespaces() {
            self.metrics.sidecars_outdated.remove(&[("namespace", namespace.clone())]);
        }
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
