//! Forwards, gateways and agents in one line each.

mod agent;

pub use self::agent::{AgentRow, agent};

use crds::{
    BackendHealth, Condition, Delivery, ForwardGateway, ListenerStatus, PortForward, PortForwardSpec, PortForwardStatus,
};
use serde::Serialize;

use crate::{check::Outcome, placement::key, remedy};

/// The next step for an object on which no operator has reported.
const UNREPORTED: &str =
    "see the checks above: an operator must run, watch this namespace (watchNamespaces) and serve this class";

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
    /// Message of the condition `Ready`; if the forward is ready but deserves attention, the reason.
    pub message: String,
    /// The next step, if there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Proxies that run this generation, out of all that should.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxies: Option<Proxies>,
    /// Listeners that hold a port.
    pub listeners: Vec<ListenerRow>,
    /// Number of live sessions in the proxies that answered. Absent: the sessions were not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u64>,
    /// Backends in one line.
    pub to: String,
    /// The placement of the listeners.
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
    /// Message of the condition `Ready`; if the gateway is ready but deserves attention, the reason.
    pub message: String,
    /// The next step, if there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
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

/// The condition of a fleet that has not adopted changes of the installation, such as its image. The condition never
/// affects `Ready`.
pub(crate) fn outdated(conditions: &[Condition]) -> Option<&Condition> {
    condition(conditions, "Outdated").filter(|outdated| outdated.status == "True")
}

/// Port or range of a listener with its protocol.
pub(crate) fn port(listener: &ListenerStatus) -> String {
    let protocol = listener.protocol.as_str();
    match listener.end_port {
        Some(end) => format!("{}-{end}/{protocol}", listener.port),
        None => format!("{}/{protocol}", listener.port),
    }
}

/// Health of backends in the words of status.
pub(crate) fn health(health: BackendHealth) -> &'static str {
    match health {
        BackendHealth::All => "All",
        BackendHealth::Some => "Some",
        BackendHealth::None => "None",
    }
}

/// The fate of the messages of a durable listener, if that deserves attention.
pub(crate) fn undelivered(spec: &PortForwardSpec, listener: &ListenerStatus) -> Option<&'static str> {
    match listener.delivery? {
        Delivery::Flowing => None,
        Delivery::Behind => Some("the oldest waiting message is older than 10 s"),
        Delivery::Stalled => Some("messages wait, and the sink has accepted none for 30 s"),
        Delivery::Full => Some("messages are dropped or refused, because the log is full"),
        Delivery::StoreFailed => Some(store_failed(spec.has_stream(&listener.name))),
    }
}

/// What fails where messages are kept, and what helps.
pub(crate) const fn store_failed(is_in_stream: bool) -> &'static str {
    if is_in_stream {
        "the NATS server fails or refuses its clients, so that messages are not safe: restore the server, or correct its \
         credentials"
    } else {
        "the disk fails or is full, so that messages are not safe: free space on it or replace it"
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

/// Status, reason and message of `Ready`; without a current report, texts that say so.
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

/// Problems that deserve attention although `Ready` is true: `Ready` is about the configuration alone.
fn concerns(spec: &PortForwardSpec, status: &PortForwardStatus) -> Vec<String> {
    let dead = status.listeners.iter().filter(|listener| listener.backends == Some(BackendHealth::None));
    let dead: Vec<&str> = dead.map(|listener| listener.name.as_str()).collect();
    let mut concerns: Vec<String> = Vec::new();
    concerns.extend((!dead.is_empty()).then(|| format!("no backend of listener {} is healthy", dead.join(", "))));
    let listeners = status.listeners.iter();
    concerns.extend(listeners.filter_map(|it| Some(format!("listener {}: {}", it.name, undelivered(spec, it)?))));
    let limit = condition(&status.conditions, "LimitReached").filter(|limit| limit.status == "True");
    concerns.extend(limit.map(|limit| limit.message.clone()));
    // The condition is also true if pods are missing, or their app fails.
    let injected = condition(&status.conditions, "Injected").filter(|injected| injected.reason != "Injected");
    concerns.extend(injected.map(|injected| injected.message.clone()));
    let behind = status.data_plane.as_ref().filter(|plane| plane.acked < plane.total && concerns.is_empty());
    concerns.extend(behind.map(|plane| format!("{} of {} proxies run this generation", plane.acked, plane.total)));
    concerns
}

/// The row of a forward, without its sessions: they are not part of the object.
pub fn forward(forward: &PortForward) -> ForwardRow {
    let status = forward.status.clone().unwrap_or_default();
    let ready = condition(&status.conditions, "Ready");
    let is_current = status.observed_generation == forward.metadata.generation;
    let [ready_status, reason, mut message] = words(ready, is_current);
    let listener = |listener: &ListenerStatus| ListenerRow {
        name: listener.name.clone(),
        port: port(listener),
        backends: listener.backends.map(health),
    };
    let (key, is_reported, mut outcome) = (key(forward), ready.is_some(), outcome(ready, is_current));
    if let (Outcome::Ok, concerns @ [_, ..]) = (outcome, concerns(&forward.spec, &status).as_slice()) {
        (outcome, message) = (Outcome::Warning, concerns.join("; "));
    }
    let describe = || format!("kubectl portlane describe -n {} {}", key.namespace, key.name);
    let hint = (outcome != Outcome::Ok).then(|| if is_reported { describe() } else { UNREPORTED.to_owned() });
    ForwardRow {
        namespace: key.namespace,
        name: key.name,
        outcome,
        ready: ready_status,
        reason,
        message,
        hint,
        proxies: status.data_plane.as_ref().map(|plane| Proxies { acked: plane.acked, total: plane.total }),
        listeners: status.listeners.iter().map(listener).collect(),
        sessions: None,
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
    let mut outcome = outcome(ready, is_current);
    let mut hint = (outcome != Outcome::Ok).then(|| match ready {
        Some(ready) => remedy::of_gateway(gateway, &ready.reason, &ready.message),
        None => UNREPORTED.to_owned(),
    });
    let [ready_status, reason, mut message] = words(ready, is_current);
    if let (Outcome::Ok, Some(outdated)) = (outcome, outdated(&status.conditions)) {
        (outcome, message) = (Outcome::Warning, outdated.message.clone());
        hint = remedy::of_outdated(gateway, &outdated.reason);
    }
    GatewayRow {
        namespace: gateway.metadata.namespace.clone().unwrap_or_default(),
        name: gateway.metadata.name.clone().unwrap_or_default(),
        outcome,
        ready: ready_status,
        reason,
        message,
        hint,
        replicas: status.replicas,
        forwards: status.attached_forwards,
        addresses: status.addresses.iter().map(|address| address.value.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_durable_listener_that_does_not_deliver_deserves_attention() {
        let row = |delivery: &str| {
            let condition = json!({
                "type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "",
            });
            let listener = json!({"name": "syslog", "protocol": "TCP", "port": 514, "delivery": delivery});
            let object = json!({
                "metadata": {"name": "logs", "namespace": "shop"},
                "spec": {"placement": {}, "listeners": []},
                "status": {"conditions": [condition], "listeners": [listener]},
            });
            let row = forward(&serde_json::from_value(object).expect("a forward"));
            (row.outcome, row.message)
        };
        assert_eq!(row("Flowing").0, Outcome::Ok);
        let stalled = "listener syslog: messages wait, and the sink has accepted none for 30 s".to_owned();
        assert_eq!(row("Stalled"), (Outcome::Warning, stalled));
        for poor in ["Behind", "Full", "StoreFailed"] {
            assert_eq!(row(poor).0, Outcome::Warning, "{poor}");
        }
    }

    #[test]
    fn a_store_that_fails_is_the_disk_or_the_server_of_that_listener() {
        let listener = |name: &str, store: Value| {
            let durable = json!({"send": {"relp": {}}, "store": store});
            json!({"name": name, "protocol": "TCP", "port": 514, "durable": durable, "backends": []})
        };
        let listeners = [
            listener("kept", json!({"disk": {"maxBytes": 1}})),
            listener("far", json!({"jetStream": {"maxBytes": 1}})),
        ];
        let spec: PortForwardSpec =
            serde_json::from_value(json!({"placement": {}, "listeners": listeners})).expect("a spec");
        let said = |name: &str| {
            let status = json!({"name": name, "protocol": "TCP", "port": 514, "delivery": "StoreFailed"});
            undelivered(&spec, &serde_json::from_value(status).expect("a listener")).expect("it deserves attention")
        };
        assert!(said("kept").starts_with("the disk fails"), "{}", said("kept"));
        assert!(said("far").starts_with("the NATS server fails"), "{}", said("far"));
    }
}
