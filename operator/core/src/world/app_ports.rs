//! Ports that the app of a pod listens on. The webhook copies the ports that containers declare to an annotation,
//! because the operator watches only the metadata of pods. In the annotation a pod template can add ports, and exclude
//! ports that are declared for another reason: a Service may need a named container port on which a listener, not the
//! app, accepts.

use std::collections::BTreeSet;

use proxy_api::Transport;
use serde_json::Value;

/// Limit on the ports of one pod.
const MAX_PORTS: usize = 1024;

/// Ports by transport.
pub type AppPorts = BTreeSet<(Transport, u16)>;

/// The parsed annotation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Annotation<'a> {
    /// Ports of the app.
    pub(crate) ports: AppPorts,
    /// Ports that the app does not use, even if a container declares them.
    pub(crate) free: AppPorts,
    /// Items that are not ports, or that exceed the limit.
    pub(crate) wrong: Vec<&'a str>,
}

/// Parses the ports of the app from the annotation; ignores invalid items.
#[must_use]
pub fn read(text: &str) -> AppPorts {
    parse(text).ports
}

/// Parses the annotation.
pub(crate) fn parse(text: &str) -> Annotation<'_> {
    let mut parsed = Annotation::default();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let (to, port) = match word.strip_prefix('-') {
            Some(port) => (&mut parsed.free, port),
            None => (&mut parsed.ports, word),
        };
        let (number, transport) = port.split_once('/').unwrap_or((port, "TCP"));
        match (number.parse().ok().filter(|port| *port > 0), transport_of(transport)) {
            (Some(port), Some(transport)) if to.len() < MAX_PORTS => drop(to.insert((transport, port))),
            _ => parsed.wrong.push(word),
        }
    }
    parsed
}

/// Formats the annotation from the ports of the app and the ports that it does not use.
pub(crate) fn written(ports: &AppPorts, free: &AppPorts) -> String {
    let words = |ports: &AppPorts, sign: &'static str| -> Vec<String> {
        ports.iter().map(|(transport, port)| format!("{sign}{port}/{transport}")).collect()
    };
    [words(ports, ""), words(free, "-")].concat().join(",")
}

/// The ports that these containers declare.
pub(crate) fn declared<'a>(containers: impl Iterator<Item = &'a Value>) -> AppPorts {
    let ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let port = |declared: &Value| {
        let transport = transport_of(declared["protocol"].as_str().unwrap_or("TCP"))?;
        Some((transport, u16::try_from(declared["containerPort"].as_u64()?).ok()?))
    };
    ports.filter_map(port).take(MAX_PORTS).collect()
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
        let none = AppPorts::new();
        assert_eq!(written(&declared, &none), "8000/TCP,53/UDP");
        assert_eq!(read(&written(&declared, &none)), declared);
        let Annotation { ports, free, wrong } = parse("80, 0/TCP,53/SCTP,x,70000,,1/UDP,-81,-");
        assert_eq!(written(&ports, &free), "80/TCP,1/UDP,-81/TCP");
        assert_eq!(wrong, ["0/TCP", "53/SCTP", "x", "70000", "-"]);
    }

    #[test]
    fn a_port_is_a_number_from_1_to_65535_and_a_pod_has_1024_of_each_sign_at_most() {
        assert_eq!(parse("1,65535,65536,0").wrong, ["65536", "0"]);
        let text = (1..=1025).map(|port| format!("{port},-{port}")).collect::<Vec<_>>().join(",");
        let Annotation { ports, free, wrong } = parse(&text);
        assert_eq!((ports.len(), free.len(), wrong), (1024, 1024, vec!["1025", "-1025"]));
    }
}
