//! The operator: watches the objects of the cluster, compiles them, pushes configuration to proxies and writes status.
//!
//! ```text
//! API server ══watch══▶ Cache (World) ──translate──▶ Publisher ──▶ Hub ══stream══▶ proxies
//!     ▲                                                             │
//!     │                              Proxies (what was reported) ◀══╛
//!     ├──status patches── StatusWriter ◀── status(verdict, reports)
//!     └──children──────── gateways: Deployment, Service, …
//! ```
//!
//! One task, the [`driver`], owns all state and decides in the words of [`operator_core`]; everything else carries
//! messages to it and from it. Every replica keeps its cache warm; only the one that holds the Lease translates, serves
//! streams and writes.

pub mod cache;
pub mod custom_metrics;
pub mod driver;
pub mod events;
pub mod gateway;
pub mod http;
pub mod https;
pub mod identity;
pub mod inject;
pub mod lease;
pub mod metrics;
pub mod notices;
pub mod pki;
pub mod publish;
pub mod run;
pub mod scaling;
pub mod serve;
pub mod settings;
pub mod status_writer;
pub mod watch;

/// The controller's name: field manager, reporter of events.
pub const NAME: &str = "portlane-operator";
/// Label of the pods that carry a proxy: `gateway` or `sidecar`.
pub const PROXY_LABEL: &str = "portlane.dev/proxy";
/// Label of a gateway's pods and children, with its name.
pub const GATEWAY_LABEL: &str = "portlane.dev/gateway";
