//! The host that a request names.

use std::net::IpAddr;

/// Whether the host of a request, from its `Host` header or its URI, is this machine: a loopback name or address, or
/// the address that the server is bound to. A web page whose name an attacker has made to resolve to loopback (DNS
/// rebinding) sends the attacker's name.
#[must_use]
pub fn is_own(host: &str, bound: IpAddr) -> bool {
    let Some(name) = without_port(host) else { return false };
    match name.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback() || ip.to_canonical() == bound.to_canonical(),
        Err(_) => name.strip_suffix('.').unwrap_or(name).eq_ignore_ascii_case("localhost"),
    }
}

/// The host without its port; `None` if the rest is no port.
fn without_port(host: &str) -> Option<&str> {
    let (name, rest) = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => host.find(':').map_or((host, ""), |colon| host.split_at(colon)),
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port)).then_some(name)
}
