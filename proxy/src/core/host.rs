//! Where a request to the admin address comes from: the host that it names, and the web page that sent it.

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

/// Whether a browser sent the request for a web page that is not of this server. A browser sends `Origin` with a GET
/// request of another page that wants to read the answer, and `Sec-Fetch-Site` with every request; other clients send
/// neither.
#[must_use]
pub fn is_of_another_page(has_origin: bool, fetch_site: Option<&str>) -> bool {
    has_origin || fetch_site.is_some_and(|site| !matches!(site, "same-origin" | "none"))
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
