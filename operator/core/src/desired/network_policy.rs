//! The network policy of a fleet.

use std::collections::BTreeSet;

use crds::ForwardGateway;
use proxy_api::Transport;
use serde_json::{Value, json};

use crate::{
    desired::{fleets::Peers, tunnels},
    names::HEALTH_PORT,
};

/// Most port ranges of a network policy. A fleet with more ranges is open on every port.
const MAX_OPENED: usize = 100;

/// The spec of the policy. Policies are additive: this one opens the ports of listeners and tunnels and the health port
/// to every source, even in a namespace that denies by default. All other ports are closed.
pub(super) fn spec(
    gateway: &ForwardGateway,
    selector: &Value,
    ports: &BTreeSet<(Transport, u16)>,
    peers: &Peers,
) -> Value {
    let mut open = opened(ports);
    open.push(json!({"protocol": "TCP", "port": HEALTH_PORT}));
    let mut rule = json!({"ports": open});
    let mut ingress = Vec::new();
    if !peers.0.is_empty() {
        rule["from"] = json!(peers.0);
        ingress.extend(tunnels::own_pods(gateway, selector));
    }
    ingress.insert(0, rule);
    json!({
        "podSelector": {"matchLabels": selector},
        "policyTypes": ["Ingress"],
        "ingress": ingress,
    })
}

/// The ports as entries of a network policy; adjacent ports become one range.
fn opened(ports: &BTreeSet<(Transport, u16)>) -> Vec<Value> {
    let mut ranges: Vec<(Transport, u16, u16)> = Vec::new();
    for (transport, port) in ports {
        match ranges.last_mut() {
            Some((same, _, last)) if same == transport && last.checked_add(1) == Some(*port) => *last = *port,
            _ => ranges.push((*transport, *port, *port)),
        }
    }
    if ranges.len() > MAX_OPENED {
        return ["TCP", "UDP"]
            .iter()
            .map(|transport| json!({"protocol": transport, "port": 1, "endPort": 65535}))
            .collect();
    }
    let entry = |(transport, first, last): (Transport, u16, u16)| {
        let mut entry = json!({"protocol": transport.to_string(), "port": first});
        if last > first {
            entry["endPort"] = json!(last);
        }
        entry
    };
    ranges.into_iter().map(entry).collect()
}
