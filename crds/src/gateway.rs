//! `ForwardGateway`: a managed fleet of proxies that forwards of several teams can attach to.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    autoscaling::Autoscaling,
    durability::Durability,
    jetstream::GatewayJetStream,
    namespaces::NamespaceScope,
    pod_template::PodTemplate,
    ports::{PortRange, ProtocolPorts},
    scalars::{ANNOTATION_KEYS, ANNOTATION_KEYS_MESSAGE, AnnotationValue, Cidr, LABEL_KEY},
    status::ForwardGatewayStatus,
    tenant::Tenant,
    tunnels::GatewayTunnels,
};

/// A `ForwardGateway` is a managed fleet of proxies. It defines who may attach forwards and which ports they may use.
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
    doc = "A ForwardGateway is a managed fleet of proxies. It defines who may attach forwards and which ports they may use.",
    validation = Rule::new("self.metadata.name.size() <= 52").message("metadata.name must be at most 52 characters long"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS-1035 label: lower case letters, digits and '-', starting with a letter"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Forwards", type_ = "integer", json_path = ".status.attachedForwards"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.addresses[0].value", priority = 1),
    printcolumn(name = "Class", type_ = "string", json_path = ".spec.controllerClass", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.controllerClass) == has(oldSelf.controllerClass) && (!has(self.controllerClass) || self.controllerClass == oldSelf.controllerClass)").message("controllerClass cannot be changed: delete the object and create it again in the other class"),
    validation = Rule::new("has(self.durability) == has(oldSelf.durability) && (!has(self.durability) || self.durability == oldSelf.durability)").message("durability cannot be added, changed or removed: make another gateway")
)]
pub struct ForwardGatewaySpec {
    /// Class of the operator that serves this object, 1 to 63 characters. If a cluster has several operators, each
    /// serves only the objects of its own class. Forwards must have the same class as their gateway. Immutable. Absent:
    /// the operator without a class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub controller_class: Option<String>,
    /// Number of proxies in the fleet, 0 to 1000; kubectl scale sets this field. Default: 2.
    // The scale subresource answers 500 for an object without `replicas`, so this one field has a schema default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000), extend("default" = 2))]
    pub replicas: Option<i32>,
    /// Scales the fleet with a HorizontalPodAutoscaler; `replicas` is then ignored. Absent: the fleet has `replicas`
    /// proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// Service in front of the fleet; its ports follow the attached listeners. Absent: a ClusterIP Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<GatewayService>,
    /// Labels, annotations, resources and scheduling of the fleet's pods. A field that is set here replaces that of the
    /// chart value `gateways.podTemplate`; labels and annotations are merged. Absent: only the chart value applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
    /// Which forwards may attach, which ports and hostnames they may claim, and what their `address` backends may
    /// connect to. Absent: forwards of the gateway's own namespace may attach, use every port, and connect to every
    /// address that `addressCIDRs` need not name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_forwards: Option<AllowedForwards>,
    /// Ranges from which a port is allocated to each listener without `port`, at most 16. Absent: 20000 to 29999.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub allocation: Vec<PortRange>,
    /// Maximum time that a terminating proxy waits for live sessions, 1 to 86400 seconds. Absent: 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub drain_seconds: Option<u32>,
    /// Pins the proxies of this fleet to a tag or digest in the repository of the installation's proxy image. A change
    /// rolls out the fleet immediately. Absent: the installation's proxy image; the chart value `gateways.rollout`
    /// decides when the fleet adopts a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_image: Option<ProxyImage>,
    /// Lets agents (ForwardAgent) connect to the fleet. Absent: agents cannot connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnels: Option<GatewayTunnels>,
    /// Keeps the messages of durable listeners on a PersistentVolumeClaim of each pod, so that they survive the pod. It
    /// cannot be added, changed or removed. Absent: they are on an emptyDir of each pod, and are deleted with the pod.
    /// Messages of listeners with `store.jetStream` are in streams in both cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// NATS servers for durable listeners with `store.jetStream`, whose messages are in streams there instead of on a
    /// disk of the pods. A change of `credentialsRef` or `caRef` rolls out the fleet. Absent: listeners with
    /// `store.jetStream` are not accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jet_stream: Option<GatewayJetStream>,
}

/// An image of the proxy in the repository of the installation: exactly one of `tag` and `digest`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.tag) != has(self.digest)").message("exactly one of tag and digest must be set"))]
pub struct ProxyImage {
    /// Tag of the image, 1 to 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), pattern(r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"))]
    pub tag: Option<String>,
    /// Digest of the image: `sha256:` and 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), pattern(r"^sha256:[0-9a-f]{64}$"))]
    pub digest: Option<String>,
}

/// The Service in front of a fleet.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.loadBalancerClass) && !has(self.allocateLoadBalancerNodePorts) || has(self.type) && self.type == 'LoadBalancer'").message("loadBalancerClass and allocateLoadBalancerNodePorts need type LoadBalancer"),
    validation = Rule::new("!has(self.externalTrafficPolicy) || has(self.type) && self.type in ['LoadBalancer', 'NodePort']").message("externalTrafficPolicy needs type LoadBalancer or NodePort")
)]
pub struct GatewayService {
    /// Type of the Service: ClusterIP, NodePort or LoadBalancer, or None to create no Service. Absent: ClusterIP.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<ServiceType>,
    /// Maximum number of ports of the Service, 1 to 1000; listeners beyond this limit are not accepted. Absent: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_ports: Option<u16>,
    /// Routing of traffic from outside the cluster. Local preserves the client source IP, and uses only pods on the
    /// node that receives the traffic; Cluster uses all pods. Absent: Cluster, the default of Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<ExternalTrafficPolicy>,
    /// Class of the load balancer implementation that serves the Service, 1 to 253 characters. Absent: the cluster's
    /// default implementation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), pattern(LABEL_KEY))]
    pub load_balancer_class: Option<String>,
    /// Annotations of the Service, such as settings of the load balancer, at most 32. Absent: none.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "x-kubernetes-validations" = [{"rule": ANNOTATION_KEYS, "message": ANNOTATION_KEYS_MESSAGE}]))]
    pub annotations: std::collections::BTreeMap<String, AnnotationValue>,
    /// Whether a node port is allocated for each port of a LoadBalancer Service; many load balancers need none. Absent:
    /// true.
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

/// Routing of traffic that enters the cluster through a Service.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum ExternalTrafficPolicy {
    Cluster,
    Local,
}

/// Which forwards may attach to a gateway, and what they may use.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AllowedForwards {
    /// Namespaces whose forwards may attach. Absent: the gateway's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<NamespaceScope>,
    /// Ports that listeners may claim, at most 16 ranges. Absent: all ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub ports: Vec<ProtocolPorts>,
    /// Networks that `address` backends may connect to, at most 64 CIDRs. Forwards from other namespaces need them for
    /// every `address` backend, and for endpoints of their Services that are not pods; do not include the pod and
    /// Service networks. Link-local addresses, cloud metadata services, kubelets, nodes of the fleet, the API server
    /// and the operator's `protectedCIDRs` are used only if a /32 or /128 names the address; loopback, multicast and
    /// unspecified addresses are never used. Absent: any other address for forwards of the gateway's own namespace,
    /// none for others.
    #[serde(default, rename = "addressCIDRs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub address_cidrs: Vec<Cidr>,
    /// What individual namespaces may claim and use, at most 64 entries, identified by `name`. A namespace without an
    /// entry may claim the hostnames and ports that no entry lists; unless it is the gateway's own namespace, it may
    /// hold at most half of `service.maxPorts`. Absent: no namespace has an entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub tenants: Vec<Tenant>,
}
