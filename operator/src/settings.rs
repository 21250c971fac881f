//! Settings of the operator, from arguments and environment variables.

#![allow(clippy::doc_markdown, reason = "these texts are shown by --help, which prints backticks as they are")]

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use crds::PodTemplate;
use operator_core::{
    desired::{
        fleets::{Peers, Rollout},
        pods::Pods,
        tuning::Resources,
    },
    notices::Format,
    world::{class, protected::ProtectedNetworks, rights::FleetNamespaces},
};
use proxy_api::doors::StreamPort;

/// Compiles PortForwards into configuration, pushes the configuration to proxies, and reports the result in status.
#[derive(Args, Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is one switch of the command line")]
pub struct Settings {
    /// Namespace of the operator, which contains its Lease and the Secret of its CA.
    #[arg(long, env = "PORTLANE_NAMESPACE", default_value = "portlane")]
    pub namespace: String,
    /// Controller class: this operator serves the PortForwards and ForwardGateways with this spec.controllerClass, and
    /// ignores all others. Empty: those without a class.
    #[arg(long, env = "PORTLANE_CONTROLLER_CLASS", default_value = "", value_parser = class::parse)]
    pub controller_class: String,
    /// Name of this pod, part of its identity in the leader election.
    #[arg(long, env = "PORTLANE_POD", default_value = "portlane-operator")]
    pub pod: String,
    /// Name of the Lease for leader election.
    #[arg(long, env = "PORTLANE_LEASE", default_value = "portlane-operator")]
    pub lease: String,
    /// Name of the Secret that holds the CA.
    #[arg(long, env = "PORTLANE_ROOTS_SECRET", default_value = "portlane-roots")]
    pub roots_secret: String,
    /// Name of the Secret that holds the root CAs of tunnels. The root CA of a gateway signs the certificates of its
    /// pods and of the agents that dial them. The operator creates the Secret when the first gateway has tunnels.
    #[arg(long, env = "PORTLANE_TUNNEL_ROOTS_SECRET", default_value = "portlane-tunnel-roots")]
    pub tunnel_roots_secret: String,
    /// Maximum number of root CAs of tunnels for the gateways of one namespace, including deleted gateways. The Secret
    /// holds 512.
    #[arg(long, env = "PORTLANE_TUNNEL_ROOTS_PER_NAMESPACE", default_value_t = 64)]
    pub tunnel_roots_per_namespace: usize,
    /// Namespaces to watch, separated by commas. Absent: all namespaces.
    #[arg(long, env = "PORTLANE_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Let forwards of every namespace use every Service, without ReferenceGrants.
    #[arg(long, env = "PORTLANE_ALLOW_ALL_SERVICES", default_value_t = false, action = clap::ArgAction::Set)]
    pub allow_all_services: bool,
    /// Networks that no gateway may connect to as addresses, separated by commas, such as further addresses of the API
    /// server. A gateway may use an address that its addressCIDRs names as a /32 or /128. At most 256.
    #[arg(long, value_name = "CIDRS", env = "PORTLANE_PROTECTED_CIDRS", default_value = "")]
    pub protected_cidrs: ProtectedNetworks,
    /// Listen address for the streams of proxies. `[::]`, here and below, accepts IPv6 and IPv4; without IPv6 on the
    /// host it becomes 0.0.0.0.
    #[arg(long, env = "PORTLANE_STREAM_ADDRESS", default_value = "[::]:9443")]
    pub stream_address: SocketAddr,
    /// Listen address of /livez, /readyz and /metrics.
    #[arg(long, env = "PORTLANE_HEALTH_ADDRESS", default_value = "[::]:9080")]
    pub health_address: SocketAddr,
    /// Unix socket that serves /livez, /readyz and /metrics; `portlane-operator probe` connects to it. In a pod, set
    /// the variable, which the probes read too. Absent: not served.
    #[arg(long, value_name = "FILE", env = "PORTLANE_SOCKET")]
    pub socket: Option<PathBuf>,
    /// Default resources of sidecars, which annotations of a pod override: JSON with requests and limits. Absent:
    /// requests of 10m CPU and 16Mi memory, limits of 1 CPU and 256Mi memory.
    #[arg(long, env = "PORTLANE_SIDECAR_RESOURCES")]
    pub sidecar_resources: Option<Resources>,
    /// Listen address of the mutating webhook that injects sidecars.
    #[arg(long, env = "PORTLANE_WEBHOOK_ADDRESS", default_value = "[::]:9444")]
    pub webhook_address: SocketAddr,
    /// Name of the MutatingWebhookConfiguration whose CA bundle the leader keeps current. Absent: none.
    #[arg(long, env = "PORTLANE_WEBHOOK")]
    pub webhook: Option<String>,
    /// Keep the annotation controller.kubernetes.io/pod-deletion-cost in step with live sessions, in fleets with
    /// autoscaling.
    #[arg(long, env = "PORTLANE_DELETION_COST", default_value_t = true, action = clap::ArgAction::Set)]
    pub deletion_cost: bool,
    /// Listen address of the APIs that API servers aggregate: custom metrics and the live API. Absent: neither is
    /// served.
    #[arg(long, env = "PORTLANE_CUSTOM_METRICS_ADDRESS", requires = "pod_ips")]
    pub custom_metrics_address: Option<SocketAddr>,
    /// APIs to serve at --custom-metrics-address, separated by commas.
    #[arg(
        long,
        value_enum,
        env = "PORTLANE_APIS",
        value_delimiter = ',',
        default_values_t = [AggregatedApi::CustomMetrics, AggregatedApi::Live],
    )]
    pub apis: Vec<AggregatedApi>,
    /// Name of the Service of the aggregated APIs. It has no selector: the leader writes itself as its endpoint.
    #[arg(long, env = "PORTLANE_CUSTOM_METRICS_SERVICE", default_value = "portlane-metrics")]
    pub custom_metrics_service: String,
    /// IP addresses of this pod, separated by commas: one, or one of each family.
    #[arg(long, env = "PORTLANE_POD_IPS", value_delimiter = ',')]
    pub pod_ips: Vec<IpAddr>,
    /// Address at which proxies reach the operator.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "PORTLANE_OPERATOR",
        default_value = "portlane-operator.portlane.svc:9443"
    )]
    pub operator: String,
    /// Image of the proxies in gateways and sidecars.
    #[arg(long, env = "PORTLANE_PROXY_IMAGE", default_value = concat!("localhost/portlane/proxy:", env!("CARGO_PKG_VERSION")))]
    pub proxy_image: String,
    /// Pull policy of the proxy image: Always, IfNotPresent or Never.
    #[arg(long, env = "PORTLANE_PROXY_PULL_POLICY", default_value = "IfNotPresent")]
    pub proxy_pull_policy: String,
    /// Pull secrets of the proxy image, separated by commas: names of Secrets in the namespaces of the pods. Absent: none.
    #[arg(long, env = "PORTLANE_PROXY_PULL_SECRETS", value_delimiter = ',')]
    pub proxy_pull_secrets: Vec<String>,
    /// Leave user and group ids of proxies to the cluster, as OpenShift requires.
    #[arg(long, env = "PORTLANE_PROXY_CLUSTER_IDS", default_value_t = false, action = clap::ArgAction::Set)]
    pub proxy_cluster_ids: bool,
    /// Namespaces in which ForwardGateways get fleets, separated by commas. `*`: every watched namespace. Empty: none.
    #[arg(long, env = "PORTLANE_FLEET_NAMESPACES", default_value = "*")]
    pub fleet_namespaces: FleetNamespaces,
    /// Run fleets of ForwardGateways with spec.durability: StatefulSets, and Jobs that drain claims before these are
    /// deleted.
    #[arg(long, env = "PORTLANE_FLEET_CLAIMS", default_value_t = false, action = clap::ArgAction::Set)]
    pub fleet_claims: bool,
    /// Defaults for the pods of fleets, which a gateway may override: JSON, as podTemplate of a ForwardGateway.
    #[arg(long, env = "PORTLANE_FLEET_POD_TEMPLATE", value_parser = pod_template)]
    pub fleet_pod_template: Option<PodTemplate>,
    /// How fleets adopt another image of the proxy and other changes of their pods. OneByOne: in the order of their
    /// names, each once the previous one is rolled out and ready. Pinned: a fleet keeps its pods until its gateway
    /// changes.
    #[arg(long, value_enum, env = "PORTLANE_FLEET_ROLLOUT", default_value_t = FleetRollout::OneByOne)]
    pub fleet_rollout: FleetRollout,
    /// IP address that the proxies of fleets bind for health and metrics.
    #[arg(long, env = "PORTLANE_FLEET_BIND_IP", default_value = "::")]
    pub fleet_bind_ip: IpAddr,
    /// Create a NetworkPolicy for each fleet, which admits peers to the ports of its listeners and to its health port.
    /// With false, policies that this operator created earlier are deleted.
    #[arg(long, env = "PORTLANE_FLEET_NETWORK_POLICIES", default_value_t = false, action = clap::ArgAction::Set)]
    pub fleet_network_policies: bool,
    /// Who may connect to fleets with a NetworkPolicy: JSON, a list of peers as `from` of a NetworkPolicy. Absent: every
    /// source.
    #[arg(long, env = "PORTLANE_FLEET_NETWORK_POLICY_FROM", value_parser = peers)]
    pub fleet_network_policy_from: Option<Peers>,
    /// Create HPAs for objects with spec.autoscaling.
    #[arg(long, env = "PORTLANE_AUTOSCALING", default_value_t = true, action = clap::ArgAction::Set)]
    pub autoscaling: bool,
    /// Maximum number of objects of each kind that are cached (per namespace, where kinds are watched by namespace).
    /// Further objects are ignored, counted and logged.
    #[arg(long, env = "PORTLANE_MAX_OBJECTS", default_value_t = 100_000)]
    pub max_objects: usize,
    /// Maximum number of connected proxies.
    #[arg(long, env = "PORTLANE_MAX_PROXIES", default_value_t = StreamPort::DEFAULT.proxies)]
    pub max_proxies: usize,
    /// Maximum number of connections to the port for the streams of proxies that have not authenticated yet. Connected
    /// proxies do not count.
    #[arg(long, env = "PORTLANE_MAX_UNAUTHENTICATED", default_value_t = StreamPort::DEFAULT.strangers)]
    pub max_unauthenticated: usize,
    /// Maximum number of connections from one source that have not authenticated yet. A source is an address; all
    /// addresses of an IPv6 /64 together may have three times as many. Raise this if the proxies of many nodes reach
    /// the operator from one address.
    #[arg(long, env = "PORTLANE_MAX_UNAUTHENTICATED_PER_SOURCE", default_value_t = StreamPort::DEFAULT.per_source)]
    pub max_unauthenticated_per_source: usize,
    /// Maximum number of new connections per second to the port for the streams of proxies; at most a quarter of them
    /// from one source. Connections beyond that are closed immediately, and their proxies retry.
    #[arg(
        long,
        env = "PORTLANE_CONNECTIONS_PER_SECOND",
        default_value_t = StreamPort::DEFAULT.per_second,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub connections_per_second: u32,
    /// Lifetime of the operator's serving certificate, in seconds. The certificate is renewed at half its lifetime.
    #[arg(long, env = "PORTLANE_CERTIFICATE_SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(8..))]
    pub certificate_seconds: u64,
    /// Name of a Secret in the operator's namespace with the serving certificate of the webhook and the aggregated
    /// APIs: tls.crt, tls.key and ca.crt. A change takes effect without a restart. Absent: the operator's own CA signs
    /// that certificate.
    #[arg(long, env = "PORTLANE_SERVING_SECRET")]
    pub serving_secret: Option<String>,
    /// File with the URL of a webhook that receives notices. Absent: no notices are sent.
    #[arg(long, env = "PORTLANE_NOTICE_URL_FILE")]
    pub notice_url_file: Option<PathBuf>,
    /// Format of notices.
    #[arg(long, value_enum, env = "PORTLANE_NOTICE_FORMAT", default_value_t = NoticeFormat::Json)]
    pub notice_format: NoticeFormat,
    /// Log filter, in the syntax of RUST_LOG.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log: String,
    /// Format of log records.
    #[arg(long, value_enum, env = "PORTLANE_LOG_FORMAT", default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

fn peers(text: &str) -> Result<Peers, serde_json::Error> {
    serde_json::from_str(text)
}

fn pod_template(text: &str) -> Result<PodTemplate, serde_json::Error> {
    serde_json::from_str(text)
}

impl Settings {
    /// The settings of all pods with a proxy.
    #[must_use]
    pub fn pods(&self) -> Pods {
        Pods { pull_secrets: self.proxy_pull_secrets.clone(), cluster_ids: self.proxy_cluster_ids }
    }
}

/// Ways to roll out fleets.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum FleetRollout {
    /// All fleets at once.
    AllAtOnce,
    /// One fleet after the other.
    OneByOne,
    /// Fleets keep their pods until their gateways change.
    Pinned,
}

impl From<FleetRollout> for Rollout {
    fn from(rollout: FleetRollout) -> Self {
        match rollout {
            FleetRollout::AllAtOnce => Self::AllAtOnce,
            FleetRollout::OneByOne => Self::OneByOne,
            FleetRollout::Pinned => Self::Pinned,
        }
    }
}

/// APIs that API servers aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AggregatedApi {
    /// custom.metrics.k8s.io: the load of pods, for HPAs.
    CustomMetrics,
    /// live.portlane.dev: live sessions, and what a proxy runs.
    Live,
}

/// Formats of notices.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum NoticeFormat {
    /// A JSON object with all fields of the notices.
    Json,
    /// {"text": …}, as Slack, Mattermost and others accept it.
    Slack,
}

impl From<NoticeFormat> for Format {
    fn from(format: NoticeFormat) -> Self {
        match format {
            NoticeFormat::Json => Self::Json,
            NoticeFormat::Slack => Self::Slack,
        }
    }
}

/// Formats of log records.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for people to read.
    Text,
}
