//! What is known, asked for.

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
    /// Whether every watch is complete.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.sources.values().all(|state| state.synced || state.is_late)
    }

    /// Whether the pods of a namespace are known.
    #[must_use]
    pub fn knows_pods_of(&self, namespace: &str) -> bool {
        let source = Source { kind: Kind::Pods, namespace: Some(namespace.to_owned()) };
        self.sources.get(&source).is_some_and(|state| state.synced)
    }

    /// Whether it is known what selects this pod: the pods of its namespace are, and it is among them. It may be known to
    /// carry a proxy before, by another watch.
    #[must_use]
    pub fn knows_selected(&self, key: &ObjectKey, uid: &str) -> bool {
        self.knows_pods_of(&key.namespace) && self.pods.get(key).is_some_and(|pod| pod.uid == uid)
    }

    /// A pod with what is known of it, if it is there and stays.
    #[must_use]
    pub fn pod(&self, key: &ObjectKey) -> Option<&PodInfo> {
        self.proxy_pods.get(key).or_else(|| self.pods.get(key))
    }

    /// The gateway whose fleet a pod is of: it says so, and runs as that fleet does.
    #[must_use]
    pub fn gateway_of(&self, key: &ObjectKey) -> Option<ObjectKey> {
        let pod = self.proxy_pods.get(key)?;
        let gateway = ObjectKey::new(key.namespace.clone(), pod.gateway.clone()?);
        let ours = self.world.gateways.contains_key(&gateway) && pod.service_account == gateway.name;
        ours.then_some(gateway)
    }

    /// Namespaces with sidecar forwards.
    pub fn sidecar_namespaces(&self) -> impl Iterator<Item = &String> {
        self.sidecars.keys()
    }

    /// Why a gateway cannot be read, if so.
    #[must_use]
    pub fn unreadable_gateway(&self, key: &ObjectKey) -> Option<&str> {
        self.unreadable_gateways.get(key).map(|found| found.why.as_str())
    }

    /// A forward with the metadata that it has now, although its newest version may not be readable. Of one that never was
    /// readable, nothing but the metadata is known.
    #[must_use]
    pub fn forward(&self, key: &ObjectKey) -> Option<Cow<'_, PortForward>> {
        let known = self.world.forwards.get(key);
        let Some(metadata) = self.unreadable_forwards.get(key) else { return known.map(Cow::Borrowed) };
        let mut forward = known.cloned().unwrap_or_else(|| PortForward::new(&key.name, PortForwardSpec::default()));
        forward.metadata = metadata.clone();
        Some(Cow::Owned(forward))
    }

    /// The same of a gateway.
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

    /// Whether an object is there and its newest version can be read.
    #[must_use]
    pub fn can_read(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Gateway(key) => {
                self.world.gateways.contains_key(key) && !self.unreadable_gateways.contains_key(key)
            }
            Subject::Forward(key) => self.world.forwards.contains_key(key) && !self.world.unreadable.contains_key(key),
        }
    }

    /// Everything that asks for an autoscaler.
    pub fn scaling(&self) -> impl Iterator<Item = Subject> {
        let gateways = self.world.gateways.iter().filter(|(_, gateway)| gateway.spec.autoscaling.is_some());
        let gateways = gateways.map(|(key, _)| Subject::Gateway(key.clone()));
        gateways.chain(self.scaling_forwards.iter().cloned().map(Subject::Forward))
    }
}
