//! Validates active health checks.

use std::cmp;

use crds::{HttpCheck, TcpCheck};
use proxy_api::{HealthCheck, Probe, Transport};

use super::{Violations, escaped, transport};

/// Longest name of an account that a check logs in with, in bytes.
const LONGEST_USER: usize = 80;

pub(super) fn check(item: &crds::Listener, path: &str, found: &mut Violations) -> Option<HealthCheck> {
    let spec = item.health_check.as_ref()?;
    let path = format!("{path}.healthCheck");
    let (probe, port) = match (&spec.http, &spec.tcp, &spec.mysql, &spec.postgres) {
        (Some(http), None, None, None) => (http_probe(http, &path, found), http.port),
        (None, Some(tcp), None, None) => (tcp_probe(tcp, &path, found), tcp.port),
        (None, None, Some(mysql), None) => {
            (Probe::Mysql { user: account(mysql.user.as_deref(), &format!("{path}.mysql"), found) }, mysql.port)
        }
        (None, None, None, Some(postgres)) => {
            let user = account(postgres.user.as_deref(), &format!("{path}.postgres"), found);
            (Probe::Postgres { user }, postgres.port)
        }
        _ => {
            found.add(path, "exactly one of http, tcp, mysql and postgres must be set");
            return None;
        }
    };
    if port == Some(0) {
        found.add(path.clone(), "the port must be 1 to 65535");
    }
    let is_named = port.is_some() || item.backends.iter().all(|backend| backend.health_check_port.is_some());
    if !is_named && transport(item.protocol) == Transport::Udp {
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

fn http_probe(http: &HttpCheck, path: &str, found: &mut Violations) -> Probe {
    let asked = http.path.clone().unwrap_or_else(|| "/".to_owned());
    if !asked.starts_with('/') || !asked.bytes().all(|byte| byte.is_ascii_graphic()) {
        found.add(
            format!("{path}.http.path"),
            "must begin with '/' and contain only printable ASCII characters other than spaces",
        );
    }
    Probe::Http { path: asked }
}

fn tcp_probe(tcp: &TcpCheck, path: &str, found: &mut Violations) -> Probe {
    let mut bytes = |text: Option<&str>, field: &str| {
        let decoded = escaped::octets(text?);
        decoded.inspect_err(|why| found.add(format!("{path}.tcp.{field}"), why)).ok()
    };
    let (send, expect) = (bytes(tcp.send.as_deref(), "send"), bytes(tcp.expect.as_deref(), "expect"));
    if tcp.send.is_some() && tcp.expect.is_none() {
        found.add(format!("{path}.tcp"), "send needs expect: without expect, no check reads the answer");
    }
    expect.map_or(Probe::Tcp, |expect| Probe::Exchange { send: send.unwrap_or_default(), expect })
}

/// The account of a check, printable ASCII without spaces.
fn account(user: Option<&str>, path: &str, found: &mut Violations) -> Option<String> {
    let user = user?;
    if user.is_empty() || user.len() > LONGEST_USER || !user.bytes().all(|byte| byte.is_ascii_graphic()) {
        found.add(format!("{path}.user"), "must be 1 to 80 printable ASCII characters other than spaces");
    }
    Some(user.to_owned())
}
