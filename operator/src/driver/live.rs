//! Answers to questions of the live API: which proxies to ask, and what they should run.

use std::collections::BTreeSet;

use super::{Driver, leading::Leading};
use operator_core::{
    Group, ObjectKey, ProxyId,
    live_api::{
        api::Of,
        carriers::{carriers, carriers_in},
        config::Configured,
        rates::Rates,
        together::{Forwards, Together},
    },
};

use crate::inputs::questions::{LiveProxy, LiveQuestion};

impl Driver {
    pub(super) fn answer_live(&self, leading: &Leading, question: LiveQuestion) {
        // The caller may have given up.
        match question {
            LiveQuestion::Proxies { of, reply } => drop(reply.send(self.live_proxies(leading, &of))),
            LiveQuestion::Together { namespace, reply } => drop(reply.send(together(leading, namespace.as_deref()))),
            LiveQuestion::Config { pod, reply } => drop(reply.send(self.configured(leading, pod))),
        }
    }

    /// The proxies that may have live sessions. Terminating pods have some until their streams end.
    fn live_proxies(&self, leading: &Leading, of: &Of) -> Option<Vec<LiveProxy>> {
        let proxies: BTreeSet<ProxyId> = match of {
            Of::Pod(pod) => [self.known_proxy(leading, pod)?].into(),
            Of::Forward(origin) => {
                let verdict = leading.translator.verdict(origin)?;
                let connected = verdict.groups.iter().flat_map(|group| leading.publisher.followers(group)).cloned();
                let mut all = carriers(verdict, leading.fleets.all(), &leading.proxies);
                all.extend(connected);
                all
            }
        };
        let forward = match of {
            Of::Pod(_) => None,
            Of::Forward(origin) => Some(origin),
        };
        let live = |proxy: &ProxyId| {
            let pod = proxy.pod()?.clone();
            let rates = Rates::of(&leading.proxies, proxy, forward);
            Some(LiveProxy { pod, asks: leading.publisher.asks(proxy), rates })
        };
        Some(proxies.iter().filter_map(live).collect())
    }

    fn configured(&self, leading: &Leading, pod: ObjectKey) -> Option<Configured> {
        let proxy = self.known_proxy(leading, &pod)?;
        let publisher = &leading.publisher;
        let planned = || publisher.snapshot(leading.fleets.group_of(&pod, &leading.translator));
        let snapshot = publisher.target(&proxy).unwrap_or_else(planned);
        Some(Configured { snapshot, state: leading.proxies.get(&proxy).cloned(), pod })
    }

    /// The proxy of a pod, if the pod was created with one or has one that is connected.
    fn known_proxy(&self, leading: &Leading, pod: &ObjectKey) -> Option<ProxyId> {
        let proxy = ProxyId::Pod(pod.clone());
        let is_known = self.cache.proxy_pods.contains_key(pod) || leading.proxies.get(&proxy).is_some();
        is_known.then_some(proxy)
    }
}

/// The proxies that may have live sessions of the forwards of a namespace, or of all. Each group is visited once,
/// however many forwards it runs.
fn together(leading: &Leading, namespace: Option<&str>) -> (Vec<LiveProxy>, Forwards) {
    let carriers = |group: &Group| -> BTreeSet<ProxyId> {
        let connected = leading.publisher.followers(group);
        carriers_in(group, leading.fleets.all(), &leading.proxies).chain(connected).cloned().collect()
    };
    let Together { forwards, proxies } =
        Together::new(leading.translator.verdicts(), namespace, carriers, &leading.proxies);
    let live = |(proxy, rates): (ProxyId, _)| {
        let pod = proxy.pod()?.clone();
        Some(LiveProxy { pod, asks: leading.publisher.asks(&proxy), rates })
    };
    (proxies.into_iter().filter_map(live).collect(), forwards)
}
