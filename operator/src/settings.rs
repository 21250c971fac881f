//! What can be set about an operator, from arguments and variables.

#![allow(clippy::doc_markdown, reason = "these texts are shown by --help, which prints backticks as they are")]

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::{Parser, ValueEnum};
use operator_core::{desired::tuning::Resources, notices::Format};

/// Compiles PortForwards into configuration, pushes it to proxies, and tells in status what became of it.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Settings {
    /// Namespace that the operator runs in: its Lease and the Secret with its roots are there.
    #[arg(long, env = "PORTLANE_NAMESPACE", default_value = "portlane")]
    pub namespace: String,
    /// Name of this pod, part of its identity in the election.
    #[arg(long, env = "PORTLANE_POD", default_value = "portlane-operator")]
    pub pod: String,
    /// Name of the Lease.
    #[arg(long, env = "PORTLANE_LEASE", default_value = "portlane-operator")]
    pub lease: String,
    /// Name of the Secret with the roots.
    #[arg(long, env = "PORTLANE_ROOTS_SECRET", default_value = "portlane-roots")]
    pub roots_secret: String,
    /// Namespaces to watch, separated by commas. Absent: all.
    #[arg(long, env = "PORTLANE_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Let every namespace use every Service, without ReferenceGrants.
    #[arg(long, env = "PORTLANE_ALLOW_ALL_SERVICES", default_value_t = false, action = clap::ArgAction::Set)]
    pub allow_all_services: bool,
    /// Where proxies connect.
    #[arg(long, env = "PORTLANE_STREAM_ADDRESS", default_value = "0.0.0.0:9443")]
    pub stream_address: SocketAddr,
    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "PORTLANE_HEALTH_ADDRESS", default_value = "0.0.0.0:9080")]
    pub health_address: SocketAddr,
    /// What sidecars are given if annotations say nothing else: JSON with requests and limits. Absent: 10m of CPU and 16Mi of
    /// memory requested, at most 1 CPU and 256Mi.
    #[arg(long, env = "PORTLANE_SIDECAR_RESOURCES")]
    pub sidecar_resources: Option<Resources>,
    /// Where the webhook is served that gives pods a proxy.
    #[arg(long, env = "PORTLANE_WEBHOOK_ADDRESS", default_value = "0.0.0.0:9444")]
    pub webhook_address: SocketAddr,
    /// Name of the MutatingWebhookConfiguration whose CA bundle is kept. Absent: none.
    #[arg(long, env = "PORTLANE_WEBHOOK")]
    pub webhook: Option<String>,
    /// Keep pod-deletion-cost in step with live sessions, in fleets that scale by themselves.
    #[arg(long, env = "PORTLANE_DELETION_COST", default_value_t = true, action = clap::ArgAction::Set)]
    pub deletion_cost: bool,
    /// Where the leader serves the metrics API that autoscalers ask. Absent: nowhere.
    #[arg(long, env = "PORTLANE_CUSTOM_METRICS_ADDRESS", requires = "pod_ip")]
    pub custom_metrics_address: Option<SocketAddr>,
    /// Name of the Service of the metrics API, without a selector: its endpoint is the leader.
    #[arg(long, env = "PORTLANE_CUSTOM_METRICS_SERVICE", default_value = "portlane-metrics")]
    pub custom_metrics_service: String,
    /// Address of this pod.
    #[arg(long, env = "PORTLANE_POD_IP")]
    pub pod_ip: Option<IpAddr>,
    /// Address under which proxies reach the operator.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "PORTLANE_OPERATOR",
        default_value = "portlane-operator.portlane.svc:9443"
    )]
    pub operator: String,
    /// Image of the proxies of gateways.
    #[arg(long, env = "PORTLANE_PROXY_IMAGE", default_value = concat!("localhost/portlane/proxy:", env!("CARGO_PKG_VERSION")))]
    pub proxy_image: String,
    /// When that image is pulled: Always, IfNotPresent or Never.
    #[arg(long, env = "PORTLANE_PROXY_PULL_POLICY", default_value = "IfNotPresent")]
    pub proxy_pull_policy: String,
    /// Most objects of one kind (and namespace, where kinds are watched by namespace) that are kept; further ones are left out,
    /// which is counted and logged.
    #[arg(long, env = "PORTLANE_MAX_OBJECTS", default_value_t = 100_000)]
    pub max_objects: usize,
    /// Most proxies that may be connected.
    #[arg(long, env = "PORTLANE_MAX_PROXIES", default_value_t = 5000)]
    pub max_proxies: usize,
    /// Seconds that the operator's own certificate lasts; it is changed at half of it.
    #[arg(long, env = "PORTLANE_CERTIFICATE_SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(8..))]
    pub certificate_seconds: u64,
    /// File with the URL of a webhook that is sent notices. Absent: none are sent.
    #[arg(long, env = "PORTLANE_NOTICE_URL_FILE")]
    pub notice_url_file: Option<PathBuf>,
    /// What that webhook understands.
    #[arg(long, value_enum, env = "PORTLANE_NOTICE_FORMAT", default_value_t = NoticeFormat::Json)]
    pub notice_format: NoticeFormat,
    /// What is logged, as RUST_LOG has it.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log: String,
    /// Form of log records.
    #[arg(long, value_enum, env = "PORTLANE_LOG_FORMAT", default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// What a webhook for notices understands.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum NoticeFormat {
    /// A JSON object with all of it.
    Json,
    /// `{"text": …}`, as Slack, Mattermost and others take it.
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

/// Forms of log records.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}
