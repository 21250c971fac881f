//! Pods whose proxies may follow the operator.

use crate::{
    names::{DRAINER, PROXY_LABEL},
    world::{ObjectKey, cache::Cache},
};

/// The role of a proxy's pod. The token of the proxy proves pod, uid and `ServiceAccount`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A pod of the fleet of this gateway, which may be gone, or a pod that drains a claim of the fleet.
    Gateway(ObjectKey),
    /// A pod with a sidecar. Whether a forward selects the pod does not matter: a proxy whose forwards are gone must
    /// learn that.
    Sidecar,
    /// No pod of this name has this uid and `ServiceAccount` (yet).
    Unknown,
    /// The operator expects no proxy in this pod, for this reason.
    Unexpected(&'static str),
}

impl Cache {
    /// The role of a pod whose proxy opens a stream.
    #[must_use]
    pub fn carrier(&self, key: &ObjectKey, uid: &str, service_account: &str) -> Carrier {
        let Some(pod) = self.proxy_pods.get(key) else {
            return match self.pod(key) {
                Some(pod) if pod.uid == uid && !pod.labels.contains_key(PROXY_LABEL) => {
                    Carrier::Unexpected("the pod has no label portlane.dev/proxy")
                }
                // The watch of pods with a proxy shows the pod soon, or never.
                _ => Carrier::Unknown,
            };
        };
        // The token of a deleted pod passes a TokenReview for some more seconds; the cache is more recent.
        if pod.uid != uid || pod.service_account != service_account {
            return Carrier::Unknown;
        }
        match (pod.labels.get(PROXY_LABEL).map(String::as_str), &pod.gateway) {
            (Some("gateway"), Some(gateway)) if *gateway == pod.service_account => {
                Carrier::Gateway(ObjectKey::new(key.namespace.clone(), gateway.clone()))
            }
            (Some("gateway"), Some(_)) => {
                Carrier::Unexpected("the pod does not run under the ServiceAccount of its gateway")
            }
            (Some("gateway"), None) => Carrier::Unexpected("the pod has no label portlane.dev/gateway"),
            (Some("sidecar"), None) => Carrier::Sidecar,
            (Some("sidecar"), Some(_)) => {
                Carrier::Unexpected("a pod with a sidecar has the label portlane.dev/gateway")
            }
            (Some(DRAINER), None) => match &pod.drains {
                Some(gateway) if *gateway == pod.service_account => {
                    Carrier::Gateway(ObjectKey::new(key.namespace.clone(), gateway.clone()))
                }
                _ => Carrier::Unexpected("the pod does not run under the ServiceAccount of the gateway that it drains"),
            },
            _ => Carrier::Unexpected("the label portlane.dev/proxy is not one of gateway, sidecar and drainer"),
        }
    }
}
