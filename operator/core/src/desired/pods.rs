//! Parts that fleets and sidecars share: the credentials for their image, and who chooses their user. For fleets, also
//! the pod template.

use std::collections::BTreeMap;

use crds::PodTemplate;
use serde_json::{Value, json};

/// User and group id of the proxy, as set by its image.
const USER: u32 = 65532;

/// Folder of the state volume: the configuration, and the messages of durable listeners.
const STATE: &str = "/var/lib/portlane";
/// Size limit of the state volume. kubelet evicts a pod whose volume is larger.
pub(super) const STATE_SIZE: &str = "16Gi";
/// Bytes of the state volume for messages: the rest is for the configuration, and for logs of removed listeners.
const MESSAGE_BYTES: u64 = 15 << 30;

/// Variables of a proxy that keeps the messages of durable listeners on its state volume. The volume is deleted with
/// the pod, so the proxy uses this time at its end to send messages to sinks.
pub(super) fn messages(drain_seconds: u32) -> [Value; 3] {
    [
        json!({"name": "PORTLANE_DATA", "value": STATE}),
        json!({"name": "PORTLANE_DATA_BYTES", "value": MESSAGE_BYTES.to_string()}),
        json!({"name": "PORTLANE_DATA_DRAIN_SECONDS", "value": drain_seconds.to_string()}),
    ]
}

/// Settings of all pods with a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// Names of Secrets with credentials for the registry of the image, in the namespaces of the pods.
    pub pull_secrets: Vec<String>,
    /// Whether the cluster chooses user and group ids, as `OpenShift` does.
    pub cluster_ids: bool,
}

impl Pods {
    /// Sets these fields of a security context to the user of the image, unless the cluster chooses the ids.
    pub(super) fn identify(&self, context: &mut Value, fields: &[&str]) {
        if !self.cluster_ids {
            for field in fields {
                context[*field] = json!(USER);
            }
        }
    }

    /// The pull secrets that a pod does not have yet, in the form of a pod.
    pub(super) fn missing_pull_secrets(&self, named: &Value) -> Vec<Value> {
        let named = named.as_array().map(Vec::as_slice).unwrap_or_default();
        let secrets = self.pull_secrets.iter().map(|name| json!({"name": name}));
        secrets.filter(|secret| !named.contains(secret)).collect()
    }
}

/// The pod template of a gateway, completed by the installation's. Labels and annotations are merged, and the gateway's
/// win. Each other field is the gateway's, or else the installation's.
pub(super) fn completed(own: Option<&PodTemplate>, defaults: &PodTemplate) -> PodTemplate {
    let own = own.cloned().unwrap_or_default();
    PodTemplate {
        labels: added(own.labels, &defaults.labels),
        annotations: added(own.annotations, &defaults.annotations),
        resources: own.resources.or_else(|| defaults.resources.clone()),
        node_selector: if own.node_selector.is_empty() { defaults.node_selector.clone() } else { own.node_selector },
        tolerations: if own.tolerations.is_empty() { defaults.tolerations.clone() } else { own.tolerations },
        affinity: own.affinity.or_else(|| defaults.affinity.clone()),
        topology_spread_constraints: if own.topology_spread_constraints.is_empty() {
            defaults.topology_spread_constraints.clone()
        } else {
            own.topology_spread_constraints
        },
        priority_class_name: own.priority_class_name.or_else(|| defaults.priority_class_name.clone()),
    }
}

fn added<V: Clone>(mut own: BTreeMap<String, V>, defaults: &BTreeMap<String, V>) -> BTreeMap<String, V> {
    for (key, value) in defaults {
        own.entry(key.clone()).or_insert_with(|| value.clone());
    }
    own
}
