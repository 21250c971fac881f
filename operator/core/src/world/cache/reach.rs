//! The reach of fleets: their pods, and the Services that select the pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
};

use proxy_api::MAX_PEERS;

use super::{Cache, Touched};
use crate::{
    names::PROXY_LABEL,
    world::{
        ObjectKey, SidecarPod,
        objects::{Drain, Hold, PodInfo, ServiceInfo},
        reach::Reach,
    },
};

/// Whether a change of a pod leaves the reach of its fleet the same. Readiness does not matter.
fn is_reached_alike(before: &PodInfo, now: &PodInfo) -> bool {
    let belongs = |pod: &PodInfo| (pod.gateway.clone(), pod.service_account.clone(), pod.leaving);
    belongs(before) == belongs(now)
        && before.labels == now.labels
        && before.ips == now.ips
        && before.node_ips == now.node_ips
}

/// The address at which agents reach the sidecar of a pod; `None` if there is none.
fn sidecar_of(info: &PodInfo) -> Option<SidecarPod> {
    let is_sidecar = info.labels.get(PROXY_LABEL).is_some_and(|role| role == "sidecar") && info.gateway.is_none();
    // The address of a pod that has ended may already belong to another pod.
    if !is_sidecar || info.ended || info.uid.is_empty() {
        return None;
    }
    let (uid, created, leaving) = (info.uid.clone(), info.created, info.leaving);
    // A sidecar listens only at this address. A pod in the network of its node has no address of its own, and no
    // injected sidecar: a listener at the address belongs to the node.
    let address = info.ip.filter(|ip| !info.node_ips.contains(ip))?;
    Some(SidecarPod { uid, created, address, leaving })
}

/// The gateway whose status reports on a pod, and the reported state: that of a drainer, or the obstacle to the start
/// of a pod.
fn told_of(info: &PodInfo) -> Option<(String, Drain, Hold)> {
    let held = info.gateway.as_ref().filter(|_| info.hold != Hold::None);
    let gateway = info.drains.as_ref().or(held).filter(|_| !info.leaving)?;
    Some((gateway.clone(), info.drain, info.hold.clone()))
}

impl Cache {
    /// Replaces or removes a pod with a proxy, and updates the fleets that it belonged or belongs to.
    pub(super) fn proxy_pod(&mut self, key: &ObjectKey, info: Option<PodInfo>, touched: &mut Touched) {
        let now = info.as_ref().and_then(|info| info.gateway.clone());
        let (is_same, is_same_peer) = match (self.proxy_pods.get(key), &info) {
            (Some(before), Some(now)) => {
                (is_reached_alike(before, now), before.ready == now.ready && before.uid == now.uid)
            }
            _ => (false, false),
        };
        let told = [self.proxy_pods.get(key), info.as_ref()].map(|info| info.and_then(told_of));
        let before = match info {
            Some(info) => self.proxy_pods.insert(key.clone(), info),
            None => self.proxy_pods.remove(key),
        };
        touched.proxy_pods.insert(key.clone());
        if told[0] != told[1] {
            let gateways = told.into_iter().flatten();
            touched.gateways.extend(gateways.map(|(gateway, ..)| ObjectKey::new(key.namespace.clone(), gateway)));
        }
        self.sidecar_pod(key, touched);
        if is_same && is_same_peer {
            return;
        }
        let gateways: BTreeSet<String> = before.and_then(|info| info.gateway).into_iter().chain(now).collect();
        for gateway in gateways {
            let gateway = ObjectKey::new(key.namespace.clone(), gateway);
            if is_same {
                self.peers(&gateway, touched);
            } else {
                self.reach(&gateway, touched);
            }
        }
    }

    /// Updates the address at which agents reach the sidecar of a pod.
    fn sidecar_pod(&mut self, key: &ObjectKey, touched: &mut Touched) {
        let now = self.proxy_pods.get(key).and_then(sidecar_of);
        if self.world.sidecar_pods.get(key) == now.as_ref() {
            return;
        }
        match now {
            Some(now) => drop(self.world.sidecar_pods.insert(key.clone(), now)),
            None => drop(self.world.sidecar_pods.remove(key)),
        }
        touched.changes.sidecar_pods.insert(key.clone());
    }

    /// Updates the reach of the fleets of a namespace.
    pub(super) fn reach_in(&mut self, namespace: &str, touched: &mut Touched) {
        let first = ObjectKey::new(namespace, "");
        let here = self.world.gateways.range(first..).take_while(|(key, _)| key.namespace == namespace);
        let gateways: Vec<ObjectKey> = here.map(|(key, _)| key.clone()).collect();
        for gateway in gateways {
            self.reach(&gateway, touched);
        }
    }

    /// Updates the fleets that may be affected by the list which has just ended.
    pub(super) fn refresh_reach(&mut self, touched: &mut Touched) {
        self.is_listing = false;
        for gateway in mem::take(&mut self.stale_reach) {
            self.reach(&gateway, touched);
        }
    }

    /// Updates the reach of the fleet of a gateway, and records the change; during a list, only at its end.
    pub(super) fn reach(&mut self, gateway: &ObjectKey, touched: &mut Touched) {
        if self.is_listing {
            self.stale_reach.insert(gateway.clone());
            return;
        }
        self.reaches += 1;
        let reach = if self.world.gateways.contains_key(gateway) { self.reach_of(gateway) } else { Reach::default() };
        let before = self.world.reach.remove(gateway).unwrap_or_default();
        if before != reach {
            touched.changes.reach.insert(gateway.clone());
        }
        if before.fronts != reach.fronts {
            touched.changes.fronts.insert(gateway.clone());
        }
        if reach != Reach::default() {
            self.world.reach.insert(gateway.clone(), reach);
        }
        self.peers(gateway, touched);
    }

    /// Updates the pods that hand connections of agents over to each other; during a list, only at its end.
    fn peers(&mut self, gateway: &ObjectKey, touched: &mut Touched) {
        if self.is_listing {
            self.stale_reach.insert(gateway.clone());
            return;
        }
        let peers = self.peers_of(gateway);
        let before = self.world.peers.remove(gateway).unwrap_or_default();
        if before != peers {
            touched.changes.peers.insert(gateway.clone());
        }
        if !peers.is_empty() {
            self.world.peers.insert(gateway.clone(), peers);
        }
    }

    fn peers_of(&self, gateway: &ObjectKey) -> BTreeMap<String, IpAddr> {
        if self.world.gateways.get(gateway).is_none_or(|gateway| gateway.spec.tunnels.is_none()) {
            return BTreeMap::new();
        }
        let ready = self.staying_pods_of(gateway).filter(|pod| pod.ready && !pod.uid.is_empty());
        ready.filter_map(|pod| Some((pod.uid.clone(), *pod.ips.first()?))).take(MAX_PEERS).collect()
    }

    /// The pods of a fleet that are not terminating.
    fn staying_pods_of<'a>(&'a self, gateway: &'a ObjectKey) -> impl Iterator<Item = &'a PodInfo> {
        self.pods_of(gateway).map(|(_, pod)| pod).filter(|pod| !pod.leaving)
    }

    fn reach_of(&self, gateway: &ObjectKey) -> Reach {
        let pods: Vec<&PodInfo> = self.staying_pods_of(gateway).collect();
        // The pods of a fleet differ in few labels, so there are few sets of them.
        let labels: BTreeSet<&BTreeMap<String, String>> = pods.iter().map(|pod| &pod.labels).collect();
        let is_front = |service: &ServiceInfo| {
            let selects = |labels: &&BTreeMap<String, String>| {
                service.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            };
            let is_child = service.gateway.as_ref() == Some(&gateway.name);
            !service.selector.is_empty() && (is_child || labels.iter().any(selects))
        };
        let first = ObjectKey::new(gateway.namespace.clone(), "");
        let services = self.services.range(first..).take_while(|(key, _)| key.namespace == gateway.namespace);
        Reach {
            pods: pods.iter().flat_map(|pod| &pod.ips).copied().collect(),
            nodes: pods.iter().flat_map(|pod| &pod.node_ips).copied().collect(),
            fronts: services
                .filter(|(_, service)| is_front(service))
                .map(|(key, service)| (key.name.clone(), service.front.clone()))
                .collect(),
        }
    }
}
