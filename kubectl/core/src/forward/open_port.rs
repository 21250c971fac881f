//! The record that `forward` prints of a local port once it is open.

use std::net::SocketAddr;

use serde::Serialize;

/// A port of this machine that leads to a port of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenPort {
    /// The target, such as `svc/db`.
    pub target: String,
    /// Port of the target, by its number or its name.
    pub port: String,
    /// Port of this machine.
    pub local_port: u16,
    /// Sockets of this machine, one for each address family of loopback.
    pub addresses: Vec<SocketAddr>,
    /// Pods of the target.
    pub pods: usize,
    /// Pods of the target that take connections now.
    pub ready_pods: usize,
}

impl OpenPort {
    /// The line for people.
    pub fn line(&self) -> String {
        let Self { target, port, pods, ready_pods, .. } = self;
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        format!("{} → {target} {port} ({ready_pods} of {pods} pods ready)\n", addresses.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use serde_json::json;

    use super::*;

    #[test]
    fn a_port_is_a_line_for_people_and_a_record_for_programs() {
        let port = OpenPort {
            target: "svc/db".to_owned(),
            port: "pg".to_owned(),
            local_port: 15432,
            addresses: vec![(Ipv4Addr::LOCALHOST, 15432).into(), (Ipv6Addr::LOCALHOST, 15432).into()],
            pods: 3,
            ready_pods: 2,
        };
        assert_eq!(port.line(), "127.0.0.1:15432, [::1]:15432 → svc/db pg (2 of 3 pods ready)\n");
        let record = json!({
            "target": "svc/db",
            "port": "pg",
            "localPort": 15432,
            "addresses": ["127.0.0.1:15432", "[::1]:15432"],
            "pods": 3,
            "readyPods": 2,
        });
        assert_eq!(json!(port), record);
    }
}
