//! Rate limits of Events, by proxy and by namespace, so that no proxy and no namespace crowds out the Events of others.

use std::{collections::BTreeMap, time::Duration};

use proxy_api::doors::{Bucket, Rate};

use crate::world::proxy_id::ProxyId;

/// The rate of one proxy. A proxy reports the end of its drain once in its life, but its container may be restarted.
fn of_proxy() -> Rate {
    Rate::every(Duration::from_secs(300), 2)
}

/// The rate of the ends of drains in one namespace.
fn of_namespace() -> Rate {
    Rate::every(Duration::from_secs(5), 20)
}

/// The rate of the ends of all drains.
fn of_all() -> Rate {
    Rate::per_second(1, 60)
}

/// The rate of Events in one namespace. The burst is smaller than the queue of Events.
fn of_events() -> Rate {
    Rate::per_second(5, 150)
}

/// Takes a token of the bucket of each key, if all have one. Forgets buckets that are full.
fn take<K: Ord>(buckets: &mut BTreeMap<K, Bucket>, key: K, rate: Rate, now: Duration) -> bool {
    buckets.retain(|_, bucket| !bucket.is_full(now));
    buckets.entry(key).or_default().take(rate, now)
}

/// The rate limits of the Events for ended drains.
#[derive(Clone, Debug, Default)]
pub struct DrainRates {
    all: Bucket,
    namespaces: BTreeMap<String, Bucket>,
    proxies: BTreeMap<ProxyId, Bucket>,
}

impl DrainRates {
    /// Whether to publish an Event for the end of a drain of this proxy.
    #[must_use]
    pub fn admits(&mut self, proxy: &ProxyId, now: Duration) -> bool {
        let namespace = proxy.pod().map(|pod| pod.namespace.clone()).unwrap_or_default();
        // The narrowest bucket first, so that its refusals take no tokens from the others.
        take(&mut self.proxies, proxy.clone(), of_proxy(), now)
            && take(&mut self.namespaces, namespace, of_namespace(), now)
            && self.all.take(of_all(), now)
    }
}

/// The rate limits of written Events, by namespace of their object.
#[derive(Clone, Debug, Default)]
pub struct EventRates {
    namespaces: BTreeMap<String, Bucket>,
}

impl EventRates {
    /// Whether an Event about an object in this namespace is written.
    #[must_use]
    pub fn admits(&mut self, namespace: &str, now: Duration) -> bool {
        take(&mut self.namespaces, namespace.to_owned(), of_events(), now)
    }
}
