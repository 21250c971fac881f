//! What autoscalers and others may ask about the load of pods.

use proxy_api::Work;

use crate::{status::proxies::Proxies, world::ObjectKey};

/// What can be asked about a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodMetric {
    /// Live connections and flows.
    Connections,
    /// New ones a second.
    NewPerSecond,
    /// Bytes a second, both directions.
    BytesPerSecond,
}

impl PodMetric {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Connections, Self::NewPerSecond, Self::BytesPerSecond];

    /// Its name in `custom.metrics.k8s.io`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "portlane_connections",
            Self::NewPerSecond => "portlane_new_connections_per_second",
            Self::BytesPerSecond => "portlane_bytes_per_second",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    fn of(self, work: &Work) -> u64 {
        match self {
            Self::Connections => work.connections,
            Self::NewPerSecond => work.new_per_second,
            Self::BytesPerSecond => work.bytes_per_second,
        }
    }
}

impl Proxies {
    /// What a pod has to do, in all or for one forward; nothing if its proxy has not told. Of a forward that it does not run
    /// it has nothing to do; one with too many forwards to tell of each does not say.
    #[must_use]
    pub fn load(&self, pod: &ObjectKey, metric: PodMetric, forward: Option<&ObjectKey>) -> Option<u64> {
        let load = self.get(pod)?.load.as_ref()?;
        let is_untold = load.forwards.is_empty() && load.sum != Work::default();
        let work = match forward {
            None => load.sum,
            Some(_) if is_untold => return None,
            Some(forward) => load.forwards.get(&forward.to_string()).copied().unwrap_or_default(),
        };
        Some(metric.of(&work))
    }
}

/// The cost of deleting a pod with so many live sessions (`controller.kubernetes.io/pod-deletion-cost`): in steps of about a
/// fifth, so that it is seldom written, and the emptiest of some pods has the least.
#[must_use]
pub fn deletion_cost(connections: u64) -> i32 {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "at most 256")]
    let cost = (4.0 * (connections as f64 + 1.0).log2()).round() as i32;
    cost
}

#[cfg(test)]
mod tests {
    use super::*;
    use proxy_api::{Load, ReportPart};

    #[test]
    fn a_pod_is_asked_in_all_or_for_one_forward() {
        let (pod, db) = (ObjectKey::new("ns", "p"), ObjectKey::new("ns", "db"));
        let mut proxies = Proxies::default();
        proxies.connected(&pod);
        assert_eq!(proxies.load(&pod, PodMetric::Connections, None), None, "it has not told");
        let work = |connections| Work { connections, new_per_second: 2, bytes_per_second: 3 };
        let load = Load { sum: work(9), forwards: [("ns/db".to_owned(), work(4))].into() };
        proxies.loaded(&pod, load);
        assert_eq!(proxies.load(&pod, PodMetric::Connections, None), Some(9));
        assert_eq!(proxies.load(&pod, PodMetric::Connections, Some(&db)), Some(4));
        assert_eq!(proxies.load(&pod, PodMetric::BytesPerSecond, Some(&ObjectKey::new("ns", "other"))), Some(0));
        proxies.reported(&pod, ReportPart::default(), true);
        assert_eq!(proxies.load(&pod, PodMetric::NewPerSecond, None), Some(2));
        proxies.loaded(&pod, Load { sum: work(9), ..Load::default() });
        assert_eq!(proxies.load(&pod, PodMetric::Connections, Some(&db)), None, "too many forwards to tell of each");
        proxies.gone(&pod);
        assert_eq!(proxies.load(&pod, PodMetric::Connections, None), None);
    }

    #[test]
    fn costs_are_coarse_and_in_order() {
        let costs: Vec<i32> = [0, 1, 2, 10, 100, 101, 125, 1000, 1_000_000].into_iter().map(deletion_cost).collect();
        assert_eq!(costs, [0, 4, 6, 14, 27, 27, 28, 40, 80]);
        assert!(deletion_cost(u64::MAX) <= 256);
    }
}
