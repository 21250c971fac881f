//! The listeners of a `PortForward`, whose ports its proxies hold.

use crds::{ListenerStatus, PortForward, Protocol};

use super::{
    endpoints::{Declared, Unresolved, find},
    mapping::{Mapping, Remote},
    target::Target,
};

/// Returns the port that proxies hold for a listener. Only ports that the operator has assigned to the forward count.
///
/// # Errors
/// The forward has no such listener, or the listener takes datagrams.
pub fn port(target: &Target, forward: &PortForward, wanted: &Remote) -> Result<u16, Unresolved> {
    let listeners = listeners(forward);
    if listeners.is_empty() {
        return Err(Unresolved::NoListener { target: target.clone() });
    }
    // A number may be any port of a range, not only the first.
    if let Remote::Number(number) = wanted {
        let is_within = |listener: &&ListenerStatus| {
            is_stream(listener) && listener.end_port.is_some_and(|end| (listener.port..=end).contains(number))
        };
        if listeners.iter().any(|listener| is_within(&listener)) {
            return Ok(*number);
        }
    }
    let all: Vec<_> = listeners.iter().map(declared).collect();
    find(target, &all, wanted).map(|found| found.number)
}

/// Returns a request that follows a listener whose port changes.
pub fn followed(forward: &PortForward, wanted: &Remote) -> Remote {
    let Remote::Number(number) = wanted else { return wanted.clone() };
    let is_meant = |it: &&ListenerStatus| is_stream(it) && it.port == *number && it.end_port.is_none();
    let listener = listeners(forward).iter().find(is_meant);
    listener.map_or_else(|| wanted.clone(), |listener| Remote::Name(listener.name.clone()))
}

/// Returns all TCP listeners of a forward, each mapped from the port of the same number.
pub fn all(forward: &PortForward) -> Vec<Mapping> {
    let names = listeners(forward).iter().filter(|it| is_stream(it) && it.end_port.is_none()).map(|it| it.name.clone());
    names.map(|name| Mapping { remote: Remote::Name(name), ..Mapping::ONLY }).collect()
}

fn listeners(forward: &PortForward) -> &[ListenerStatus] {
    forward.status.as_ref().map(|status| status.listeners.as_slice()).unwrap_or_default()
}

fn declared(listener: &ListenerStatus) -> Declared<'_, ListenerStatus> {
    Declared { port: listener, number: listener.port, name: &listener.name, is_udp: !is_stream(listener) }
}

/// Whether a listener takes TCP connections.
fn is_stream(listener: &ListenerStatus) -> bool {
    match listener.protocol {
        Protocol::Tcp | Protocol::Tls => true,
        Protocol::Udp => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn forward() -> PortForward {
        let forward = json!({
            "metadata": {"name": "db"},
            "spec": {"placement": {"gateway": {"name": "edge"}}, "listeners": []},
            "status": {"listeners": [
                {"name": "pg", "protocol": "TCP", "port": 5432},
                {"name": "dns", "protocol": "UDP", "port": 53},
                {"name": "many", "protocol": "TCP", "port": 7000, "endPort": 7009},
            ]},
        });
        serde_json::from_value(forward).expect("a forward")
    }

    #[test]
    fn a_listener_is_found_by_its_name_its_port_or_within_its_range() {
        let target: Target = "pf/db".parse().expect("a target");
        let port = |wanted| port(&target, &forward(), &wanted);
        assert_eq!(port(Remote::Name("pg".to_owned())), Ok(5432));
        assert_eq!(port(Remote::Number(5432)), Ok(5432));
        assert_eq!(port(Remote::Number(7005)), Ok(7005));
        assert!(matches!(port(Remote::Number(53)), Err(Unresolved::NotTcp { .. })));
        assert!(matches!(port(Remote::Number(80)), Err(Unresolved::NoPort { .. })));
        assert!(matches!(port(Remote::Only), Err(Unresolved::Several { .. })));
    }

    #[test]
    fn a_number_becomes_the_name_of_its_listener() {
        assert_eq!(followed(&forward(), &Remote::Number(5432)), Remote::Name("pg".to_owned()));
        assert_eq!(followed(&forward(), &Remote::Number(7005)), Remote::Number(7005));
    }

    #[test]
    fn a_forward_without_words_means_all_its_tcp_listeners() {
        let names: Vec<Remote> = all(&forward()).into_iter().map(|mapping| mapping.remote).collect();
        assert_eq!(names, [Remote::Name("pg".to_owned())]);
    }

    #[test]
    fn a_range_ends_with_its_last_port() {
        let target: Target = "pf/db".parse().expect("a target");
        let port = |number| port(&target, &forward(), &Remote::Number(number)).ok();
        assert_eq!([6999, 7000, 7009, 7010].map(port), [None, Some(7000), Some(7009), None]);
        assert_eq!(followed(&forward(), &Remote::Number(53)), Remote::Number(53), "a UDP listener is not followed");
        assert_eq!(followed(&forward(), &Remote::Number(7000)), Remote::Number(7000), "a range has no other number");
    }
}
