//! Queries of the live API: which proxies may have live sessions, and what a proxy should run.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    live_api::{
        api::Of,
        carriers::{carriers, carriers_in},
        config::Configured,
        rates::Rates,
        together::Together,
    },
    publish::leadership::Leadership,
    translate::groups::Group,
    world::{ObjectKey, cache::Cache, proxy_id::ProxyId},
};

impl Leadership {
    /// Returns the proxies that may have live sessions, with the rates in their last reports; `None` if the requested
    /// object is unknown. Terminating pods have sessions until their streams end.
    #[must_use]
    pub fn live(&self, cache: &Cache, of: &Of) -> Option<BTreeMap<ProxyId, Option<Rates>>> {
        let (proxies, forward): (BTreeSet<ProxyId>, _) = match of {
            Of::Pod(pod) => ([self.known_proxy(cache, pod)?].into(), None),
            Of::Forward(origin) => {
                let verdict = self.translator.verdict(origin)?;
                let connected = verdict.groups.iter().flat_map(|group| self.publisher.followers(group)).cloned();
                let mut all = carriers(verdict, self.fleets.all(), &self.proxies);
                all.extend(connected);
                (all, Some(origin))
            }
        };
        let with_rates = |proxy: ProxyId| {
            let rates = Rates::of(&self.proxies, &proxy, forward);
            (proxy, rates)
        };
        Some(proxies.into_iter().map(with_rates).collect())
    }

    /// Returns the same for the forwards of a namespace, or of all namespaces. Each group is visited once, however many
    /// forwards it runs.
    #[must_use]
    pub fn live_together(&self, namespace: Option<&str>) -> Together {
        let carriers = |group: &Group| -> BTreeSet<ProxyId> {
            let connected = self.publisher.followers(group);
            carriers_in(group, self.fleets.all(), &self.proxies).chain(connected).cloned().collect()
        };
        Together::new(self.translator.verdicts(), namespace, carriers, &self.proxies)
    }

    /// Returns what the proxy of a pod should run, and what it has reported; `None` without a proxy.
    #[must_use]
    pub fn configured(&self, cache: &Cache, pod: ObjectKey) -> Option<Configured> {
        let proxy = self.known_proxy(cache, &pod)?;
        let planned = || self.publisher.snapshot(self.group_of(&proxy));
        let snapshot = self.publisher.target(&proxy).unwrap_or_else(planned);
        Some(Configured { snapshot, state: self.proxies.get(&proxy).cloned(), pod })
    }

    /// The proxy of a pod, if the pod was created with one or has one that is connected.
    fn known_proxy(&self, cache: &Cache, pod: &ObjectKey) -> Option<ProxyId> {
        let proxy = ProxyId::Pod(pod.clone());
        let is_known = cache.proxy_pods.contains_key(pod) || self.proxies.get(&proxy).is_some();
        is_known.then_some(proxy)
    }
}
