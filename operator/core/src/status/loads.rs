//! The load of pods: metrics for autoscalers, and the cost of deleting a pod.

use std::{collections::BTreeMap, time::Duration};

use proxy_api::{Load, Origin, Work};

use crate::{
    status::proxies::{GRACE, Proxies},
    world::{ObjectKey, objects::PodInfo, proxy_id::ProxyId},
};

/// A metric of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodMetric {
    /// Live connections and UDP flows.
    Connections,
    /// New connections and flows per second.
    NewPerSecond,
    /// Bytes per second, both directions together.
    BytesPerSecond,
}

impl PodMetric {
    /// Every metric.
    pub const ALL: [Self; 3] = [Self::Connections, Self::NewPerSecond, Self::BytesPerSecond];

    /// Name of the metric in `custom.metrics.k8s.io`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "portlane_connections",
            Self::NewPerSecond => "portlane_new_connections_per_second",
            Self::BytesPerSecond => "portlane_bytes_per_second",
        }
    }

    /// The metric with this name.
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

/// A ready pod that may have sessions, and has not reported to the new leader yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unheard(pub ObjectKey);

impl Proxies {
    /// A metric of these pods, by their names: for all forwards or for one. A pod whose load is unknown is left out. An
    /// HPA assumes that such a pod is at its target when the others are below, so a proxy that lost its stream keeps
    /// its last load for a while ([`GRACE`]). `began` is the time at which this leader began to publish.
    ///
    /// # Errors
    /// This leader is new and lacks the load of a ready pod: the first reports do not cover all pods.
    pub fn loads_of<'a>(
        &self,
        pods: impl IntoIterator<Item = (&'a ObjectKey, &'a PodInfo)>,
        (metric, forward): (PodMetric, Option<&Origin>),
        (began, now): (Duration, Duration),
    ) -> Result<Vec<(String, u64)>, Unheard> {
        let mut known = Vec::new();
        for (pod, info) in pods {
            match self.last_load(&ProxyId::Pod(pod.clone()), now) {
                Some(load) => known.extend(part(load, forward).map(|work| (pod.name.clone(), metric.of(&work)))),
                None if info.ready && !info.leaving && now < began + GRACE => return Err(Unheard(pod.clone())),
                None => {}
            }
        }
        Ok(known)
    }

    /// The load of a pod, in total or for one forward. `None` if the proxy has not reported, or runs too many forwards
    /// to report the load of each; 0 for a forward that the proxy does not run.
    #[must_use]
    pub fn load(&self, proxy: &ProxyId, metric: PodMetric, forward: Option<&Origin>) -> Option<u64> {
        part(self.get(proxy)?.load.as_ref()?, forward).map(|work| metric.of(&work))
    }

    /// The load of a pod by forward, in the text form of their origins. `None` if the proxy has not reported, or runs too
    /// many forwards to report the load of each.
    #[must_use]
    pub fn loads(&self, proxy: &ProxyId) -> Option<&BTreeMap<String, Work>> {
        by_forward(self.get(proxy)?.load.as_ref()?)
    }
}

/// The work of a proxy, in total or for one forward.
fn part(load: &Load, forward: Option<&Origin>) -> Option<Work> {
    match forward {
        None => Some(load.sum),
        Some(forward) => Some(by_forward(load)?.get(&forward.to_string()).copied().unwrap_or_default()),
    }
}

/// The work of a proxy by forward; `None` if it runs too many forwards to report each.
fn by_forward(load: &Load) -> Option<&BTreeMap<String, Work>> {
    let is_sum_only = load.forwards.is_empty() && load.sum != Work::default();
    (!is_sum_only).then_some(&load.forwards)
}

/// The `controller.kubernetes.io/pod-deletion-cost` of a pod with this many live sessions: higher for more sessions.
/// One step is about a fifth more sessions, so that the annotation is rarely written.
#[must_use]
pub fn deletion_cost(connections: u64) -> i32 {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "at most 256")]
    let cost = (4.0 * (connections as f64 + 1.0).log2()).round() as i32;
    cost
}

#[cfg(test)]
mod tests {
    use super::*;
    use proxy_api::ReportPart;

    #[test]
    fn the_load_of_a_pod_is_known_in_total_or_for_one_forward() {
        let (pod, db) = (ProxyId::Pod(ObjectKey::new("ns", "p")), Origin::port_forward("ns", "db"));
        let mut proxies = Proxies::default();
        proxies.connected(&pod);
        assert_eq!(proxies.load(&pod, PodMetric::Connections, None), None, "the proxy has not reported");
        let work = |connections| Work { connections, new_per_second: 2, bytes_per_second: 3 };
        let load = Load { sum: work(9), forwards: [("ns/db".to_owned(), work(4))].into() };
        proxies.loaded(&pod, load);
        assert_eq!(proxies.load(&pod, PodMetric::Connections, None), Some(9));
        assert_eq!(proxies.load(&pod, PodMetric::Connections, Some(&db)), Some(4));
        assert_eq!(proxies.load(&pod, PodMetric::BytesPerSecond, Some(&Origin::port_forward("ns", "other"))), Some(0));
        let route = Origin { kind: "TCPRoute".parse().expect("a kind"), ..db.clone() };
        assert_eq!(
            proxies.load(&pod, PodMetric::Connections, Some(&route)),
            Some(0),
            "the same names are another object"
        );
        proxies.reported(&pod, ReportPart::default(), true);
        assert_eq!(proxies.load(&pod, PodMetric::NewPerSecond, None), Some(2));
        proxies.loaded(&pod, Load { sum: work(9), ..Load::default() });
        assert_eq!(proxies.load(&pod, PodMetric::Connections, Some(&db)), None, "too many forwards to report each");
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
