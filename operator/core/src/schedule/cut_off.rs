//! Counts proxies that a new CA has cut off. A proxy trusts the CA certificates that it was started with, and those
//! that its stream delivers. If the Secret with the CA is lost while no operator runs, the next operator generates
//! another CA, which no running proxy trusts. The proxies keep their last configuration until their pods are replaced.

use std::time::Duration;

use crate::{
    desired::ca::Trusted,
    schedule::View,
    world::{ObjectKey, objects::PodInfo},
};

/// Interval between two counts.
const COUNT: Duration = Duration::from_secs(10);
/// The tolerated clock skew between API server and operator, seconds: a younger pod may seem older than a CA
/// certificate.
const SKEW: u64 = 60;

/// The counter of proxies that are cut off.
#[derive(Debug, Default)]
pub struct CutOff {
    counted: Option<Duration>,
    count: usize,
}

/// A count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Number of proxies that are cut off.
    pub count: usize,
    /// One of these proxies, if the previous count was zero.
    pub first: Option<ObjectKey>,
}

impl CutOff {
    /// Counts the proxies, if a count is due. A pod with a proxy counts if it is older than every CA certificate and
    /// has no stream.
    pub fn tick(&mut self, view: &View<'_>, trusted: &Trusted, now: Duration) -> Option<Counted> {
        if trusted.since == 0 || self.counted.is_some_and(|counted| now < counted + COUNT) {
            return None;
        }
        self.counted = Some(now);
        let is_old = |pod: &PodInfo| pod.created.is_some_and(|created| created + SKEW < trusted.since);
        let is_cut_off = |(key, pod): &(&ObjectKey, &PodInfo)| {
            !pod.leaving && is_old(pod) && view.proxies.get(&(*key).clone().into()).is_none()
        };
        let mut pods = view.cache.proxy_pods.iter().filter(is_cut_off).map(|(key, _)| key);
        let first = pods.next();
        let count = usize::from(first.is_some()) + pods.count();
        let was_none = std::mem::replace(&mut self.count, count) == 0;
        Some(Counted { count, first: first.filter(|_| was_none).cloned() })
    }
}
