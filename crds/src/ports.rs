//! Ranges of ports.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::scalars::Protocol;

/// A range of ports of one protocol.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.endPort) || self.endPort >= self.port").message("endPort of an allowed range must not be less than port"))]
pub struct ProtocolPorts {
    /// Protocol of the ports.
    pub protocol: Protocol,
    /// First port of the range, 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Last port of the range, 1 to 65535. Absent: the same as `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub end_port: Option<u16>,
}

/// A range of ports for TCP and UDP.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.endPort) || self.endPort >= self.port").message("endPort of an allocation range must not be less than port"))]
pub struct PortRange {
    /// First port of the range, 1024 to 65535.
    #[schemars(range(min = 1024, max = 65535))]
    pub port: u16,
    /// Last port of the range, 1024 to 65535. Absent: the same as `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 65535))]
    pub end_port: Option<u16>,
}
