//! How kubelet asks a proxy: by its own program, over a unix socket of the container. No pod can keep such a probe from an
//! answer, and no port of the pod is needed.

use serde_json::{Value, json};

/// Path of the proxy's unix socket, in the volume of its state.
pub(super) const SOCKET: &str = "/var/lib/portlane/proxy.sock";

/// A probe: what to ask for, and kubelet's periods in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    /// `startup`, `ready` or `live`.
    pub(super) what: &'static str,
    /// Pause between two probes.
    pub(super) period: u32,
    /// Timeout of one probe. The program shares the CPU limit of the proxy.
    pub(super) timeout: u32,
    /// Failures in a row that count.
    pub(super) failures: u32,
}

impl Probe {
    /// The probe as a field of a container.
    pub(super) fn to_json(self) -> Value {
        json!({
            "exec": {"command": ["/portlane-proxy", "probe", self.what, "--socket", SOCKET]},
            "periodSeconds": self.period,
            "timeoutSeconds": self.timeout,
            "failureThreshold": self.failures,
        })
    }
}
