//! Validates active health checks.

use std::cmp;

use proxy_api::{HealthCheck, Probe, Transport};

use super::{Violations, transport};

pub(super) fn check(item: &crds::Listener, path: &str, found: &mut Violations) -> Option<HealthCheck> {
    let spec = item.health_check.as_ref()?;
    let path = format!("{path}.healthCheck");
    let (probe, port) = match (&spec.http, &spec.tcp) {
        (Some(http), None) => {
            let asked = http.path.clone().unwrap_or_else(|| "/".to_owned());
            if !asked.starts_with('/') || !asked.bytes().all(|byte| byte.is_ascii_graphic()) {
                found.add(
                    format!("{path}.http.path"),
                    "must begin with '/' and contain only printable ASCII characters other than spaces",
                );
            }
            (Probe::Http { path: asked }, http.port)
        }
        (None, Some(tcp)) => (Probe::Tcp, tcp.port),
        _ => {
            found.add(path, "exactly one of http and tcp must be set");
            return None;
        }
    };
    if port == Some(0) {
        found.add(path.clone(), "the port must be 1 to 65535");
    }
    if port.is_none() && transport(item.protocol) == Transport::Udp {
        found.add(path.clone(), "of a UDP listener must name the TCP port to check");
    }
    let interval = spec.interval_seconds.unwrap_or_else(|| cmp::max(5, spec.timeout_seconds.unwrap_or(0))).max(1);
    let timeout = spec.timeout_seconds.unwrap_or_else(|| cmp::min(2, interval)).max(1);
    if timeout > interval {
        found.add(format!("{path}.timeoutSeconds"), "must not be greater than intervalSeconds");
    }
    Some(HealthCheck {
        probe,
        port,
        interval_seconds: interval,
        timeout_seconds: timeout,
        unhealthy_threshold: spec.unhealthy_threshold.unwrap_or(3).max(1),
        healthy_threshold: spec.healthy_threshold.unwrap_or(2).max(1),
    })
}
