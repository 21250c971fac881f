//! A listener as an operator compiles it.

use serde_json::{Value, json};

/// The document of a listener that leads from this socket to a port of this machine. It has the defaults of a
/// `PortForward`, and no access log.
pub(crate) fn document(socket: &Value, to: u16) -> Value {
    json!({
        "revision": "0",
        "socket": socket,
        "backends": [{
            "id": format!("addr/127.0.0.1:{to}"),
            "weight": 1,
            "target": {"address": {"host": "127.0.0.1", "port": to}},
        }],
        "policy": "RoundRobin",
        "outlier": {"consecutiveFailures": 5, "ejectSeconds": 30},
        "timeouts": {
            "connectSeconds": 5,
            "idleSeconds": 3600,
            "halfCloseSeconds": 300,
            "udpIdleSeconds": 60,
            "keepaliveSeconds": 60,
        },
        "retry": {"attempts": 3, "initialBackoffMillis": 50, "maxBackoffMillis": 2000},
        "sessions": {"onUpdate": "Keep", "onUnhealthy": "Keep", "drainSeconds": 300},
        "accessLog": {"mode": "Disabled", "intervalSeconds": 0},
        "destinations": {"cidrs": [], "refuseLocal": false},
    })
}
