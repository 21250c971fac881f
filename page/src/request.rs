//! Where a request for the page comes from: the host that it names, and the web page that sent it.

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

/// Whether every host that a request names is this machine, and there is one.
#[must_use]
pub fn are_own<'a>(hosts: impl IntoIterator<Item = &'a str>, bound: IpAddr) -> bool {
    let mut hosts = hosts.into_iter().peekable();
    hosts.peek().is_some() && hosts.all(|host| is_own(host, bound))
}

/// The path below `/TOKEN`, without its first slash, if the path begins with this token. The time of the comparison does
/// not depend on where a wrong token differs.
#[must_use]
pub fn below<'a>(path: &'a str, token: &str) -> Option<&'a str> {
    let (first, rest) = path.strip_prefix('/')?.split_once('/')?;
    let differ = first.bytes().zip(token.bytes()).fold(0, |all, (one, other)| all | (one ^ other));
    (first.len() == token.len() && differ == 0).then_some(rest)
}

/// Whether a browser sent the request for a web page that is not of this server. A browser sends `Origin` with a GET
/// request of another page that tries to read the answer, and `Sec-Fetch-Site` with every request; other clients send
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn an_admin_request_names_loopback_or_the_address_of_the_door() {
        let bound = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 7));
        let six = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
        for own in ["localhost", "LOCALHOST:9181", "localhost.", "127.0.0.1", "127.0.0.7:9181", "[::1]:9181", "[::1]"] {
            assert!(is_own(own, bound), "{own}");
        }
        assert!(is_own("[::ffff:127.0.0.1]:1", bound) && is_own("[fd00::1]:9181", six));
        for foreign in [
            "",
            "evil.example",
            "evil.example:9181",
            "localhost.evil.example",
            "evil@localhost",
            "localhost:9181@evil.example",
            "192.0.2.1",
            "[fd00::1]:9181",
            "0.0.0.0:9181",
            "[::1]evil",
            "[::1",
            "::1",
        ] {
            assert!(!is_own(foreign, bound), "{foreign}");
        }
    }

    #[test]
    fn a_request_that_names_no_host_or_two_of_which_one_is_foreign_is_not_for_this_machine() {
        let bound = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!(are_own(["localhost", "127.0.0.1:1"], bound));
        assert!(!are_own([], bound) && !are_own(["localhost", "evil.example"], bound));
    }

    #[test]
    fn only_paths_below_the_whole_token_are_served() {
        assert_eq!(below("/abc/", "abc"), Some(""));
        assert_eq!(below("/abc/page.js", "abc"), Some("page.js"));
        for foreign in ["", "/", "/abc", "/ab/", "/abd/", "/abcd/", "//abc/", "abc/", "/x/abc/"] {
            assert_eq!(below(foreign, "abc"), None, "{foreign}");
        }
        for mixed in ["/bac/", "/cba/", "/bca/"] {
            assert_eq!(below(mixed, "abc"), None, "{mixed} has the letters of the token");
        }
    }

    #[test]
    fn a_browser_says_which_page_it_asks_for() {
        for (has_origin, site) in [(false, None), (false, Some("same-origin")), (false, Some("none"))] {
            assert!(!is_of_another_page(has_origin, site), "{has_origin} {site:?}");
        }
        for (has_origin, site) in [(true, None), (true, Some("same-origin")), (false, Some("cross-site"))] {
            assert!(is_of_another_page(has_origin, site), "{has_origin} {site:?}");
        }
        assert!(is_of_another_page(false, Some("same-site")), "another port of this machine");
    }
}
