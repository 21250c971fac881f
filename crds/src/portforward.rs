//! `PortForward`: the manifest that users write.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{
    autoscaling::WorkloadAutoscaling,
    durable::Durable,
    guard::{Access, Limits},
    listener::Listener,
    policy::{AccessLog, Retry, Sessions, Timeouts},
    selector::Selector,
    status::PortForwardStatus,
};

/// A `PortForward` declares ports to listen on, where the listeners run, and where traffic is forwarded.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "portlane.dev",
    version = "v1alpha1",
    kind = "PortForward",
    plural = "portforwards",
    shortname = "pf",
    category = "portlane",
    namespaced,
    status = "PortForwardStatus",
    derive = "PartialEq",
    doc = "A PortForward declares ports to listen on, where the listeners run, and where traffic is forwarded.",
    validation = Rule::new("self.metadata.name.size() <= 52").message("metadata.name must be at most 52 characters"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS-1035 label: lower case letters, digits and '-', starting with a letter (it also names Services)"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Proxies", type_ = "string", json_path = ".status.dataPlane.summary", description = "Proxies that run this generation, out of all that should"),
    printcolumn(name = "Ports", type_ = "string", json_path = ".status.ports"),
    printcolumn(name = "To", type_ = "string", json_path = ".status.to"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Placement", type_ = "string", json_path = ".status.placement", priority = 1),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.addresses[0].value", priority = 1),
    printcolumn(name = "Class", type_ = "string", json_path = ".spec.controllerClass", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.placement.gateway) || self.listeners.all(l, has(l.port))").message("listeners[].port is required in a sidecar: only a gateway allocates ports"),
    validation = Rule::new("has(self.placement.sidecar) || self.listeners.all(l, l.backends.all(b, !has(b.local)))").message("a local backend needs placement.sidecar: a gateway has no app pod that a local backend could reach"),
    validation = Rule::new("!has(self.autoscaling) || has(self.placement.sidecar)").message("autoscaling needs placement.sidecar: a gateway scales by its own autoscaling"),
    validation = Rule::new("self.listeners.all(l, l.protocol != 'UDP' || !has(l.proxyProtocol) || ((!has(l.proxyProtocol.accept) || l.proxyProtocol.accept == 'Disabled') && (!has(l.proxyProtocol.send) || l.proxyProtocol.send == 'Disabled')))").message("proxyProtocol is not for UDP listeners"),
    validation = Rule::new("self.listeners.all(l, l.protocol != 'UDP' || !has(l.healthCheck) || (has(l.healthCheck.http) && has(l.healthCheck.http.port)) || (has(l.healthCheck.tcp) && has(l.healthCheck.tcp.port)) || (has(l.healthCheck.mysql) && has(l.healthCheck.mysql.port)) || (has(l.healthCheck.postgres) && has(l.healthCheck.postgres.port)) || l.backends.all(b, has(b.healthCheckPort)))").message("healthCheck of a UDP listener must name the TCP port to check"),
    validation = Rule::new("self.listeners.map(l, has(l.endPort) && has(l.port) ? l.endPort - l.port + 1 : 1).sum() <= 1024").message("the listeners must not have more than 1024 ports together"),
    validation = Rule::new("self.listeners.all(a, !has(a.port) || self.listeners.exists_one(b, has(b.port) && (a.protocol == 'UDP') == (b.protocol == 'UDP') && a.port <= (has(b.endPort) ? b.endPort : b.port) && b.port <= (has(a.endPort) ? a.endPort : a.port) && (a.name == b.name || !has(a.tls) || !has(b.tls) || a.tls.hostnames.exists(h, h in b.tls.hostnames))))").message("two listeners have the same protocol and port (TLS listeners may, with different hostnames)"),
    validation = Rule::new("has(self.controllerClass) == has(oldSelf.controllerClass) && (!has(self.controllerClass) || self.controllerClass == oldSelf.controllerClass)").message("controllerClass cannot be changed: delete the object and create it again in the other class")
)]
pub struct PortForwardSpec {
    /// Class of the operator that serves this object, 1 to 63 characters. If a cluster has several operators, each
    /// serves only the objects of its own class. A gateway must have the same class. Immutable. Absent: the operator
    /// without a class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub controller_class: Option<String>,
    /// While true, no proxy listens on the ports of this forward. The ports stay claimed, and `sessions.onUpdate`
    /// applies to live sessions. Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Where the listeners run: exactly one of `sidecar` and `gateway`.
    pub placement: Placement,
    /// Listeners with their backends, 1 to 32, identified by `name`.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub listeners: Vec<Listener>,
    /// Limits on connections and traffic, separately in each proxy. Absent: no limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Which clients are allowed, by address. Absent: all clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// Timeouts of connection attempts and sessions. Absent: the default of each field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// Retries of connections to backends, before any byte is forwarded. Absent: three attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// What happens to live sessions affected by a change. Absent: they stay until they end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Sessions>,
    /// Which sessions are written to the access log. Absent: one record per session, when it closes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,
    /// Scales the workload whose pods have the sidecars with a HorizontalPodAutoscaler. Absent: Portlane does not scale
    /// the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Box<WorkloadAutoscaling>>,
}

/// Where listeners run: exactly one of `sidecar` and `gateway`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.sidecar) != has(self.gateway)").message("exactly one of sidecar and gateway must be set"))]
pub struct Placement {
    /// The listeners run inside the pods that the selector matches, in the namespace of the PortForward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<SidecarPlacement>,
    /// The listeners run in the fleet of a `ForwardGateway`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayPlacement>,
}

/// Listeners inside the user's own pods.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SidecarPlacement {
    /// Labels of the pods. An empty selector (`{}`) matches all pods of the namespace.
    pub selector: Arc<Selector>,
}

/// Listeners in a managed fleet.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayPlacement {
    /// Name of the `ForwardGateway`.
    #[schemars(length(min = 1, max = 52), pattern(r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Namespace of the `ForwardGateway`. Absent: the namespace of the `PortForward`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
}

impl PortForwardSpec {
    /// Whether the durable listener of this name keeps its messages in a stream of a server.
    #[must_use]
    pub fn has_stream(&self, listener: &str) -> bool {
        let mut named = self.listeners.iter().filter(|it| it.name == listener);
        named.any(|it| it.durable.as_deref().is_some_and(Durable::is_in_stream))
    }
}

impl PortForward {
    /// An object with the given namespace and name, for generators and tests.
    #[must_use]
    pub fn named(namespace: &str, name: &str, spec: PortForwardSpec) -> Self {
        Self {
            metadata: ObjectMeta {
                namespace: Some(namespace.to_owned()),
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            spec,
            status: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An operator keeps tens of thousands of them.
    #[test]
    fn what_few_forwards_have_takes_no_room_in_the_others() {
        let sizes = (size_of::<PortForwardSpec>(), size_of::<Listener>());
        assert!(sizes.0 <= 384 && sizes.1 <= 192, "{sizes:?}");
    }
}
