//! Ports that the app of a pod listens on. The webhook sees what containers declare and writes it down in an annotation,
//! because of pods nothing but their metadata is watched. A template may name further ones in it.

use std::collections::BTreeSet;

use proxy_api::Transport;
use serde_json::Value;

/// The annotation: `PORT/TCP` or `PORT/UDP`, separated by commas.
pub const APP_PORTS: &str = "portlane.dev/app-ports";
/// Most ports that are written down.
const MOST: usize = 1024;

/// Ports by transport.
pub type AppPorts = BTreeSet<(Transport, u16)>;

/// Reads the annotation; gives what it names, and what in it is no port.
#[must_use]
pub fn read(text: &str) -> (AppPorts, Vec<&str>) {
    let (mut ports, mut wrong) = (AppPorts::new(), Vec::new());
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let (number, transport) = word.split_once('/').unwrap_or((word, "TCP"));
        match (number.parse().ok().filter(|port| *port > 0), transport_of(transport)) {
            (Some(port), Some(transport)) if ports.len() < MOST => drop(ports.insert((transport, port))),
            _ => wrong.push(word),
        }
    }
    (ports, wrong)
}

/// What the annotation says of these ports.
pub(super) fn written(ports: &AppPorts) -> String {
    let words: Vec<String> = ports.iter().map(|(transport, port)| format!("{port}/{transport}")).collect();
    words.join(",")
}

/// The ports that these containers declare.
pub(super) fn declared<'a>(containers: impl Iterator<Item = &'a Value>) -> AppPorts {
    let ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let port = |declared: &Value| {
        let transport = transport_of(declared["protocol"].as_str().unwrap_or("TCP"))?;
        Some((transport, u16::try_from(declared["containerPort"].as_u64()?).ok()?))
    };
    ports.filter_map(port).take(MOST).collect()
}

fn transport_of(word: &str) -> Option<Transport> {
    match word {
        "TCP" => Some(Transport::Tcp),
        "UDP" => Some(Transport::Udp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_declared_is_read_as_it_was_written() {
        let containers = json!([
            {"ports": [{"containerPort": 8000}, {"containerPort": 53, "protocol": "UDP"}, {"containerPort": 9, "protocol": "SCTP"}]},
            {"name": "none"},
            {"ports": [{"containerPort": 8000, "protocol": "TCP"}, {"containerPort": 99999}]},
        ]);
        let declared = declared(containers.as_array().expect("a list").iter());
        assert_eq!(written(&declared), "8000/TCP,53/UDP");
        assert_eq!(read(&written(&declared)), (declared, Vec::new()));
        let (ports, wrong) = read("80, 0/TCP,53/SCTP,x,70000,,1/UDP");
        assert_eq!((written(&ports).as_str(), wrong), ("80/TCP,1/UDP", vec!["0/TCP", "53/SCTP", "x", "70000"]));
    }
}
