//! Kubelet's probes of a proxy: exec probes, in which the proxy's own program queries a Unix socket in the container.
//! No client on the network can delay such a probe, and a probe needs no port of the pod.

use serde_json::{Value, json};

/// Path of the proxy's unix socket, in the volume of its state.
pub(super) const SOCKET: &str = "/var/lib/portlane/proxy.sock";

/// A probe: its endpoint, and its times in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    /// The probed endpoint: `startup`, `ready` or `live`.
    pub(super) what: &'static str,
    /// Pause between two probes.
    pub(super) period: u32,
    /// Timeout of one probe. The program shares the CPU limit of the proxy.
    pub(super) timeout: u32,
    /// Consecutive failures after which the probe counts as failed.
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
