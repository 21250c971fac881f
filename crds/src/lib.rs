//! The Kubernetes API of Portlane, group `portlane.dev`, version `v1alpha1`.
//!
//! The Rust types are the single source: `crdgen` writes the CRDs beside them as YAML, and the operator and `portlane`
//! on a laptop read the same types. Types ignore unknown fields, so that an operator older than the CRD keeps working;
//! the validator refuses unknown fields.
//!
//! The description of every optional field says what its absence means. The schemas have no defaults, because defaults
//! inside lists drift in GitOps tools and one rule for all fields is easier to remember. The only exception is
//! `replicas` of a gateway, without which the scale subresource answers with an error.

#![allow(clippy::doc_markdown, reason = "these texts are shown by kubectl explain, which prints backticks as they are")]
#![allow(unreachable_pub, reason = "KubeSchema repeats each type inside a function, where pub is unreachable")]

mod agent;
mod argocd;
mod autoscaling;
mod chart_readme;
mod check;
mod durability;
mod durable;
mod gateway;
mod guard;
mod jetstream;
mod listener;
mod manifests;
mod namespaces;
mod pod_template;
mod policy;
mod portforward;
mod ports;
mod reference;
mod scalars;
mod scheduling;
mod selector;
mod status;
mod tenant;
mod tunnels;

pub use agent::{AgentEnrolment, AgentGateway, AgentProtocol, AgentTarget, ForwardAgent, ForwardAgentSpec};
pub use argocd::{ARGOCD, ARGOCD_CONFIG_MAP, ARGOCD_SCRIPTS, argocd_config_map};
pub use autoscaling::{Autoscaling, Raw, TargetKind, TargetRef, TargetVersion, WorkloadAutoscaling};
pub use chart_readme::{CHARTS, ReadmeError, chart_readme, values_page};
pub use check::{HealthCheck, HttpCheck, MysqlCheck, PostgresCheck, TcpCheck};
pub use durability::{Durability, VolumeClaim};
pub use durable::{
    CredentialsRef, DeadLetter, DiskStore, Durable, DurableSend, DurableStore, Enrich, Framing, HttpFormat, HttpSink,
    JetStreamStore, Oversize, RelpSink, SinkFraming, TcpSink, UdpSink, WhenFull,
};
pub use gateway::{
    AllowedForwards, ExternalTrafficPolicy, ForwardGateway, ForwardGatewaySpec, GatewayService, ProxyImage, ServiceType,
};
pub use guard::{AcceptHeader, Access, Limits, OnLimit, ProxyProtocol, SendHeader};
pub use jetstream::{CaRef, GatewayJetStream};
pub use listener::{
    AddressBackend, Backend, Bind, Listener, LoadBalancing, LoadBalancingPolicy, LocalBackend, Outlier, ServiceBackend,
    Tls, TlsMode, TunnelBackend,
};
pub use manifests::{CHART, CrdYaml, OPERATOR_CHART, chart_template, crds, kinds, operator_chart_template};
pub use namespaces::{From, NamespaceScope};
pub use pod_template::{PodTemplate, Resources, TaintEffect, Toleration, TolerationOperator};
pub use policy::{AccessLog, AccessLogMode, OnUnhealthy, OnUpdate, Retry, Sessions, Timeouts};
pub use portforward::{GatewayPlacement, Placement, PortForward, PortForwardSpec, SidecarPlacement};
pub use ports::{PortRange, ProtocolPorts};
pub use reference::{REFERENCE, ReferenceError, page, reference};
pub use scalars::{AnnotationValue, Cidr, Hostname, LabelValue, NamespaceName, Protocol, Quantity};
pub use scheduling::{
    Affinity, NodeAffinity, NodeOperator, NodeRequirement, NodeSelector, NodeTerm, PodAffinity, PodTerm,
    PreferredNodes, PreferredPods, TopologySpread, WhenUnsatisfiable,
};
pub use selector::{Selector, SelectorOperator, SelectorRequirement};
pub use status::{
    AcceptedHeaders, AgentInstance, BackendHealth, Condition, DataPlaneStatus, Delivery, ForwardAddress,
    ForwardAgentStatus, ForwardGatewayStatus, ListenerStatus, PortForwardStatus, RejectedListener,
};
pub use tenant::{Tenant, TenantNamespaces};
pub use tunnels::{AllowedAgents, GatewayTunnels};

/// API group of all kinds of Portlane.
pub const GROUP: &str = "portlane.dev";
/// API version that is served and stored.
pub const VERSION: &str = "v1alpha1";
