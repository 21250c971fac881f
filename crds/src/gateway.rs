//! `ForwardGateway`: a fleet that other people's forwards attach to.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    autoscaling::Autoscaling,
    pod_template::PodTemplate,
    scalars::{AnnotationValue, Cidr, Protocol},
    selector::Selector,
    status::ForwardGatewayStatus,
};

/// A `ForwardGateway` is a managed fleet of proxies; it says who may attach forwards and which ports it gives out.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "portlane.dev",
    version = "v1alpha1",
    kind = "ForwardGateway",
    plural = "forwardgateways",
    shortname = "fgw",
    category = "portlane",
    namespaced,
    status = "ForwardGatewayStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    derive = "PartialEq",
    doc = "A ForwardGateway is a managed fleet of proxies; it says who may attach forwards and which ports it gives out.",
    validation = Rule::new("self.metadata.name.size() <= 52").message("metadata.name must be at most 52 characters long"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS-1035 label: lower case letters, digits and '-', starting with a letter"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Forwards", type_ = "integer", json_path = ".status.attachedForwards"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.addresses[0].value", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct ForwardGatewaySpec {
    /// Proxies in the fleet, 0 to 1000; kubectl scale sets it. Default: 2.
    // The scale subresource answers 500 for an object without it, so this one field has a default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000), extend("default" = 2))]
    pub replicas: Option<i32>,
    /// Proxies in the fleet by their load; replicas is not used then. Absent: replicas says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// The Service in front of the fleet; its ports follow the listeners. Absent: a ClusterIP Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<GatewayService>,
    /// What the pods of the fleet have beside what they need. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
    /// Who may attach, to which ports, and where `address` backends may point. Absent: forwards of the gateway's own
    /// namespace, every port, any address that is not the proxy's own machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_forwards: Option<AllowedForwards>,
    /// Where ports of listeners without `port` come from, at most 16 ranges. Absent: 20000 to 29999.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub allocation: Vec<PortRange>,
    /// Longest time a leaving proxy lets sessions run on, 1 to 86400 seconds. Absent: 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub drain_seconds: Option<u32>,
}

/// The Service in front of a fleet.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.loadBalancerClass) && !has(self.allocateLoadBalancerNodePorts) || has(self.type) && self.type == 'LoadBalancer'").message("loadBalancerClass and allocateLoadBalancerNodePorts need type LoadBalancer"),
    validation = Rule::new("!has(self.externalTrafficPolicy) || has(self.type) && self.type in ['LoadBalancer', 'NodePort']").message("externalTrafficPolicy needs type LoadBalancer or NodePort")
)]
pub struct GatewayService {
    /// ClusterIP, NodePort, LoadBalancer, or None for no Service. Absent: ClusterIP.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<ServiceType>,
    /// Most ports of the Service, 1 to 1000; listeners beyond are not accepted. Absent: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_ports: Option<u16>,
    /// Local keeps the client's address and sends only to pods of the node; Cluster sends to all. Absent: as Kubernetes
    /// has it, Cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<ExternalTrafficPolicy>,
    /// Which load balancer takes care of the Service. Absent: the cluster's usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub load_balancer_class: Option<String>,
    /// Annotations for the load balancer, at most 32. Absent: none.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: std::collections::BTreeMap<String, AnnotationValue>,
    /// Whether each port takes a node port as well, which many load balancers do not need. Absent: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocate_load_balancer_node_ports: Option<bool>,
}

/// Types of a gateway's Service.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum ServiceType {
    None,
    ClusterIP,
    NodePort,
    LoadBalancer,
}

/// Where a Service sends what comes from outside the cluster.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum ExternalTrafficPolicy {
    Cluster,
    Local,
}

/// Who may attach forwards to a gateway.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AllowedForwards {
    /// Namespaces whose forwards may attach. Absent: the gateway's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<NamespaceScope>,
    /// Ports that may be claimed, at most 16 ranges. Absent: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub ports: Vec<ProtocolPorts>,
    /// Networks that `address` backends may point into, at most 64 CIDRs. Absent: any but loopback, link-local and
    /// unspecified addresses, which are always refused.
    #[serde(default, rename = "addressCIDRs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub address_cidrs: Vec<Cidr>,
}

/// A set of namespaces.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.from == 'Selector') == has(self.selector)").message("selector must be set if, and only if, from is Selector"))]
pub struct NamespaceScope {
    /// Same: the gateway's own. All: every namespace. Selector: those whose labels match.
    pub from: From,
    /// Labels of the namespaces, for `from: Selector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
}

/// How namespaces are chosen.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum From {
    Same,
    All,
    Selector,
}

/// Ports of one protocol.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.endPort) || self.endPort >= self.port").message("endPort of an allowed range must not be less than port"))]
pub struct ProtocolPorts {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// First port, 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Last port, 1 to 65535. Absent: only `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub end_port: Option<u16>,
}

/// Ports of either protocol.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.endPort) || self.endPort >= self.port").message("endPort of an allocation range must not be less than port"))]
pub struct PortRange {
    /// First port, 1024 to 65535.
    #[schemars(range(min = 1024, max = 65535))]
    pub port: u16,
    /// Last port, 1024 to 65535. Absent: only `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 65535))]
    pub end_port: Option<u16>,
}
