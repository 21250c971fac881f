//! What fleets and sidecars have in common: the credentials for their image, and who chooses their user.

use serde_json::{Value, json};

/// Id of user and group of the proxy, as its image says.
const USER: u32 = 65532;

/// Settings of all pods with a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// Names of Secrets with credentials for the registry of the image, in the namespaces of the pods.
    pub pull_secrets: Vec<String>,
    /// Whether the cluster chooses the ids of user and group, as OpenShift does.
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

    /// The pull secrets that a pod does not name yet, as a pod names them.
    pub(super) fn missing_pull_secrets(&self, named: &Value) -> Vec<Value> {
        let named = named.as_array().map(Vec::as_slice).unwrap_or_default();
        let secrets = self.pull_secrets.iter().map(|name| json!({"name": name}));
        secrets.filter(|secret| !named.contains(secret)).collect()
    }
}
