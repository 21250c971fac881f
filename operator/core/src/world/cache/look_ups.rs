//! Queries of the cache.

use std::{borrow::Cow, collections::BTreeSet};

use crds::{ForwardGateway, ForwardGatewaySpec, PortForward, PortForwardSpec};

use super::Cache;
use crate::world::{
    ObjectKey,
    objects::PodInfo,
    subject::Subject,
    watched::{Kind, Source},
};

impl Cache {
    /// Whether every watch is complete, except for those added late and those that are not required.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Whether the watch of a namespace's pods is complete.
    #[must_use]
    pub fn knows_pods_of(&self, namespace: &str) -> bool {
        let source = Source { kind: Kind::Pods, namespace: Some(namespace.to_owned()) };
        self.sources.get(&source).is_some_and(|state| state.synced)
    }

    /// Whether the sidecar forwards that select this pod are known: the watch of its namespace's pods is complete and
    /// has shown the pod. The watch of proxy pods may show the pod earlier.
    #[must_use]
    pub fn knows_selected(&self, key: &ObjectKey, uid: &str) -> bool {
        self.knows_pods_of(&key.namespace) && self.pods.get(key).is_some_and(|pod| pod.uid == uid)
    }

    /// A pod, preferably from the watch of proxy pods, which knows more.
    #[must_use]
    pub fn pod(&self, key: &ObjectKey) -> Option<&PodInfo> {
        self.proxy_pods.get(key).or_else(|| self.pods.get(key))
    }

    /// The gateway whose fleet a pod belongs to, or whose claim the pod drains. The label alone does not count: the pod
    /// must also run under the fleet's `ServiceAccount`.
    #[must_use]
    pub fn gateway_of(&self, key: &ObjectKey) -> Option<ObjectKey> {
        let pod = self.proxy_pods.get(key)?;
        let name = pod.gateway.as_ref().or(pod.drains.as_ref())?;
        let gateway = ObjectKey::new(key.namespace.clone(), name.clone());
        let ours = self.world.gateways.contains_key(&gateway) && pod.service_account == gateway.name;
        ours.then_some(gateway)
    }

    /// The namespaces with sidecar forwards.
    pub fn sidecar_namespaces(&self) -> impl Iterator<Item = &String> {
        self.sidecars.keys()
    }

    /// Whether a namespace has sidecar forwards.
    #[must_use]
    pub fn has_sidecars(&self, namespace: &str) -> bool {
        self.sidecars.contains_key(namespace)
    }

    /// Why a gateway cannot be read; `None` if it can.
    #[must_use]
    pub fn unreadable_gateway(&self, key: &ObjectKey) -> Option<&str> {
        self.unreadable_gateways.get(key).map(|found| found.why.as_str())
    }

    /// A forward with its newest metadata. If the newest version is unreadable, the spec is the last readable one, or
    /// empty if none was.
    #[must_use]
    pub fn forward(&self, key: &ObjectKey) -> Option<Cow<'_, PortForward>> {
        let known = self.world.forwards.get(key).map(|forward| &**forward);
        let Some(metadata) = self.unreadable_forwards.get(key) else { return known.map(Cow::Borrowed) };
        let mut forward = known.cloned().unwrap_or_else(|| PortForward::new(&key.name, PortForwardSpec::default()));
        forward.metadata = metadata.clone();
        Some(Cow::Owned(forward))
    }

    /// A gateway with its newest metadata, like [`Cache::forward`].
    #[must_use]
    pub fn gateway(&self, key: &ObjectKey) -> Option<Cow<'_, ForwardGateway>> {
        let known = self.world.gateways.get(key);
        let Some(found) = self.unreadable_gateways.get(key) else { return known.map(Cow::Borrowed) };
        let mut gateway =
            known.cloned().unwrap_or_else(|| ForwardGateway::new(&key.name, ForwardGatewaySpec::default()));
        gateway.metadata = found.metadata.clone();
        Some(Cow::Owned(gateway))
    }

    /// Every gateway, readable or not.
    #[must_use]
    pub fn gateways(&self) -> BTreeSet<ObjectKey> {
        self.world.gateways.keys().chain(self.unreadable_gateways.keys()).cloned().collect()
    }

    /// Whether an object exists and its newest version can be read.
    #[must_use]
    pub fn can_read(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Gateway(key) => {
                self.world.gateways.contains_key(key) && !self.unreadable_gateways.contains_key(key)
            }
            Subject::Forward(key) => self.world.forwards.contains_key(key) && !self.world.unreadable.contains_key(key),
            Subject::Agent(key) => self.world.agents.get(key).is_some() && self.unreadable_agent(key).is_none(),
        }
    }

    /// The forwards and gateways with `spec.autoscaling`.
    pub fn scaling(&self) -> impl Iterator<Item = Subject> {
        let gateways = self.world.gateways.iter().filter(|(_, gateway)| gateway.spec.autoscaling.is_some());
        let gateways = gateways.map(|(key, _)| Subject::Gateway(key.clone()));
        gateways.chain(self.scaling_forwards.iter().cloned().map(Subject::Forward))
    }
}
