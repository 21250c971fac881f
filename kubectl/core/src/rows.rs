//! Forwards and gateways in one line each.

use crds::{BackendHealth, Condition, ForwardGateway, ListenerStatus, PortForward};
use serde::Serialize;

use crate::{check::Outcome, placement::key};

/// A forward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ForwardRow {
    /// Namespace of the forward.
    pub namespace: String,
    /// Name of the forward.
    pub name: String,
    /// Whether the forward needs attention.
    pub outcome: Outcome,
    /// Status of the condition `Ready`; empty while no operator has reported.
    pub ready: String,
    /// Reason of the condition `Ready`.
    pub reason: String,
    /// Message of the condition `Ready`.
    pub message: String,
    /// Proxies that run this generation, out of all that should.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxies: Option<Proxies>,
    /// Listeners that hold a port.
    pub listeners: Vec<ListenerRow>,
    /// Backends in one line.
    pub to: String,
    /// Where the listeners run.
    pub placement: String,
    /// Addresses at which clients reach the listeners.
    pub addresses: Vec<String>,
}

/// Proxies of a forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Proxies {
    /// Proxies that run this generation.
    pub acked: u32,
    /// Proxies that should run the forward.
    pub total: u32,
}

/// A listener that holds a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerRow {
    /// Name of the listener.
    pub name: String,
    /// Port or range with the protocol, such as `5432/TCP`.
    pub port: String,
    /// Health of the backends: All, Some or None. Absent: no proxy has reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backends: Option<&'static str>,
}

/// A gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRow {
    /// Namespace of the gateway.
    pub namespace: String,
    /// Name of the gateway.
    pub name: String,
    /// Whether the gateway needs attention.
    pub outcome: Outcome,
    /// Status of the condition `Ready`; empty while no operator has reported.
    pub ready: String,
    /// Reason of the condition `Ready`.
    pub reason: String,
    /// Message of the condition `Ready`.
    pub message: String,
    /// Pods of the fleet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Attached forwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwards: Option<u32>,
    /// Addresses at which clients reach the fleet.
    pub addresses: Vec<String>,
}

/// The condition of a type.
pub(crate) fn condition<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Port or range of a listener with its protocol.
pub(crate) fn port(listener: &ListenerStatus) -> String {
    let protocol = listener.protocol.as_str();
    match listener.end_port {
        Some(end) => format!("{}-{end}/{protocol}", listener.port),
        None => format!("{}/{protocol}", listener.port),
    }
}

/// Health of backends as status spells it.
pub(crate) fn health(health: BackendHealth) -> &'static str {
    match health {
        BackendHealth::All => "All",
        BackendHealth::Some => "Some",
        BackendHealth::None => "None",
    }
}

/// Whether an object with this condition `Ready` needs attention. A status that describes an earlier generation does
/// not count.
fn outcome(ready: Option<&Condition>, is_current: bool) -> Outcome {
    match ready.map(|ready| ready.status.as_str()) {
        Some("True") if is_current => Outcome::Ok,
        Some("False") if is_current => Outcome::Failed,
        _ => Outcome::Warning,
    }
}

/// Status, reason and message of `Ready`. Without a current report, they say so.
fn words(ready: Option<&Condition>, is_current: bool) -> [String; 3] {
    match ready {
        Some(ready) if is_current => [&ready.status, &ready.reason, &ready.message].map(String::clone),
        Some(ready) => {
            let message = "the operator has not reported on the newest generation yet";
            [ready.status.clone(), ready.reason.clone(), message.to_owned()]
        }
        None => ["", "", "no operator has reported on this object yet"].map(str::to_owned),
    }
}

/// The row of a forward.
pub fn forward(forward: &PortForward) -> ForwardRow {
    let status = forward.status.clone().unwrap_or_default();
    let ready = condition(&status.conditions, "Ready");
    let is_current = status.observed_generation == forward.metadata.generation;
    let [ready_status, reason, message] = words(ready, is_current);
    let listener = |listener: &ListenerStatus| ListenerRow {
        name: listener.name.clone(),
        port: port(listener),
        backends: listener.backends.map(health),
    };
    let is_without_backends = status.listeners.iter().any(|listener| listener.backends == Some(BackendHealth::None));
    let least = if is_without_backends { Outcome::Warning } else { Outcome::Ok };
    let key = key(forward);
    ForwardRow {
        namespace: key.namespace,
        name: key.name,
        outcome: outcome(ready, is_current).max(least),
        ready: ready_status,
        reason,
        message,
        proxies: status.data_plane.as_ref().map(|plane| Proxies { acked: plane.acked, total: plane.total }),
        listeners: status.listeners.iter().map(listener).collect(),
        to: status.to.clone().unwrap_or_default(),
        placement: status.placement.clone().unwrap_or_default(),
        addresses: status.addresses.iter().map(|address| address.value.clone()).collect(),
    }
}

/// The row of a gateway.
pub fn gateway(gateway: &ForwardGateway) -> GatewayRow {
    let status = gateway.status.clone().unwrap_or_default();
    let ready = condition(&status.conditions, "Ready");
    let is_current = status.observed_generation == gateway.metadata.generation;
    let [ready_status, reason, message] = words(ready, is_current);
    GatewayRow {
        namespace: gateway.metadata.namespace.clone().unwrap_or_default(),
        name: gateway.metadata.name.clone().unwrap_or_default(),
        outcome: outcome(ready, is_current),
        ready: ready_status,
        reason,
        message,
        replicas: status.replicas,
        forwards: status.attached_forwards,
        addresses: status.addresses.iter().map(|address| address.value.clone()).collect(),
    }
}
