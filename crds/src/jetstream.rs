//! The NATS servers that keep the messages of a gateway's durable listeners.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::durable::CredentialsRef;

/// The NATS servers in which durable listeners of a gateway may keep messages (store.jetStream). The server and the
/// credentials are those of the gateway: a listener only requests a stream.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.replicas) || self.replicas in [1, 3, 5]").message("replicas of spec.jetStream must be 1, 3 or 5"),
    validation = Rule::new("!has(self.url) || !self.url.matches('^tls:') || has(self.caRef)").message("url with tls needs caRef: the image of proxies has no CA certificates")
)]
pub struct GatewayJetStream {
    /// URL of a NATS server: `nats://HOST:PORT`, or `tls://HOST:PORT` for TLS. Proxies learn the other servers of the
    /// NATS cluster from it.
    #[schemars(length(min = 1, max = 1024), pattern(r"^(nats|tls)://[^/@?# ]+$"))]
    pub url: String,
    /// Secret whose key `creds` is a NATS credentials file. A new pod of the fleet starts once the Secret exists.
    /// Absent: the servers require no credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<CredentialsRef>,
    /// ConfigMap whose key `ca.crt` contains the CA certificates, in PEM, that verify the certificates of the servers.
    /// A new pod of the fleet starts once the ConfigMap exists. Absent: without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
    /// Number of servers of the NATS cluster that store each message (the replicas of a stream): 1, 3 or 5. Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: Option<u32>,
}

/// CA certificates.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaRef {
    /// Name of a ConfigMap in the namespace of the gateway.
    #[schemars(
        length(min = 1, max = 253),
        pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
}
