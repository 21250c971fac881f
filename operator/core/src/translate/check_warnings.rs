//! Warnings about valid listeners that may do what their author does not want.

use proxy_api::Probe;

use super::validate::{ValidBackend, ValidListener};

/// Ports on which `MySQL` and `MariaDB` usually serve.
const MYSQL: [u16; 2] = [3306, 3307];

/// Warns of checks by which `MySQL` and `MariaDB` would block the proxy. `namespace` is that of the forward.
pub(super) fn of(listener: &ValidListener, namespace: &str) -> Vec<String> {
    let probe = listener.health_check.as_ref().map(|check| &check.probe);
    if !matches!(probe, Some(Probe::Tcp | Probe::Exchange { .. })) {
        return Vec::new();
    }
    let checked = |backend: &ValidBackend| listener.checked_port(backend).unwrap_or_else(|| backend.to.port());
    let suspects = listener.backends.iter().filter(|backend| MYSQL.contains(&checked(backend)));
    let warning = |backend: &ValidBackend| {
        format!(
            "healthCheck.tcp of listener '{}' connects to port {} of backend {} without logging in: MySQL and MariaDB \
             count that as an error and, after max_connect_errors of them, block the proxy's host (error 1129); use \
             healthCheck.mysql",
            listener.name,
            checked(backend),
            backend.to.words(namespace)
        )
    };
    suspects.map(warning).collect()
}
