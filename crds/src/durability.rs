//! Where a `ForwardGateway` keeps the messages of durable listeners.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Where the proxies of a gateway keep the messages of durable listeners.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Durability {
    /// PersistentVolumeClaim of each proxy, `messages-GATEWAY-ORDINAL`, with access mode ReadWriteOnce. When the fleet
    /// is scaled in, the claim of a removed proxy is deleted once the sinks have its messages. When the gateway is
    /// deleted, claims are kept. The fleet is a StatefulSet, which replaces one pod at a time.
    pub volume_claim: VolumeClaim,
}

/// What the claim of a proxy requests.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeClaim {
    /// Storage that the claim requests, 1Gi to 16Ti, as a whole number of Gi or Ti. Durable listeners may use 15/16 of
    /// it.
    #[schemars(
        length(min = 3, max = 7),
        pattern(r"^(([1-9][0-9]{0,3}|1[0-5][0-9]{3}|16[0-2][0-9]{2}|163[0-7][0-9]|1638[0-4])Gi|([1-9]|1[0-6])Ti)$")
    )]
    pub size: String,
    /// Name of the StorageClass of the claim, 1 to 253 characters. Absent: the default of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub storage_class_name: Option<String>,
}
