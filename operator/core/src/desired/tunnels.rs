//! The parts of a gateway's children for agents.

use std::net::{IpAddr, SocketAddr};

use crds::ForwardGateway;
use serde_json::{Value, json};

use crate::names::TUNNEL_PORT;

/// The port that agents dial, if the gateway takes agents.
pub(super) fn port(gateway: &ForwardGateway) -> Option<u16> {
    gateway.spec.tunnels.as_ref().map(|tunnels| tunnels.port.unwrap_or(TUNNEL_PORT))
}

/// The variables of the proxy. The uid of the pod identifies it to agents, as in its certificate.
pub(super) fn variables(gateway: &ForwardGateway, bind: IpAddr) -> Vec<Value> {
    let Some(port) = port(gateway) else { return Vec::new() };
    let uid = json!({"fieldRef": {"fieldPath": "metadata.uid"}});
    let mut variables = vec![
        json!({"name": "PORTLANE_TUNNEL_ADDRESS", "value": SocketAddr::new(bind, port).to_string()}),
        json!({"name": "PORTLANE_POD_UID", "valueFrom": uid}),
    ];
    if let Some(most) = gateway.spec.tunnels.as_ref().and_then(|tunnels| tunnels.max_agents) {
        variables.push(json!({"name": "PORTLANE_MAX_AGENTS", "value": most.to_string()}));
    }
    variables
}

/// The port of the container.
pub(super) fn container_port(gateway: &ForwardGateway) -> Option<Value> {
    Some(json!({"name": "tunnels", "containerPort": port(gateway)?, "protocol": "TCP"}))
}

/// The rule of the network policy for the fleet's own pods: the pod that a load balancer chose for an agent hands the
/// connection to the pod that the agent dials.
pub(super) fn own_pods(gateway: &ForwardGateway, selector: &Value) -> Option<Value> {
    let ports = json!([{"protocol": "TCP", "port": port(gateway)?}]);
    Some(json!({"from": [{"podSelector": {"matchLabels": selector}}], "ports": ports}))
}

/// The part that determines the pods: a change rolls out the fleet.
pub(super) fn of_pods(gateway: &ForwardGateway) -> Option<Value> {
    gateway.spec.tunnels.as_ref().map(|tunnels| json!([port(gateway), tunnels.max_agents]))
}
