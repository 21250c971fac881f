//! What is known of the cluster: plain maps that the watches fill.
//!
//! ```text
//! watched ──read──▶ objects ──cache──▶ World, and which of it changed
//! ```

pub mod app_ports;
pub mod cache;
pub mod changes;
pub mod crash_loop;
pub mod managed_fields;
pub mod objects;
pub mod read;
pub mod subject;
pub mod watched;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use crds::{ForwardGateway, PortForward, Protocol};
use proxy_api::{Endpoint, Transport};
use serde::{Deserialize, Serialize, Serializer};

/// Namespace and name of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// A key from its parts.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Serialize for ObjectKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Everything that a translation depends on.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Cluster or laptop.
    pub site: Site,
    /// The forwards.
    pub forwards: BTreeMap<ObjectKey, PortForward>,
    /// The gateways they may attach to.
    pub gateways: BTreeMap<ObjectKey, ForwardGateway>,
    /// The Services that backends name.
    pub services: BTreeMap<ObjectKey, Service>,
    /// Pods that may carry a sidecar.
    pub pods: BTreeMap<ObjectKey, Pod>,
    /// Labels of namespaces.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Who may use Services of another namespace.
    pub grants: BTreeSet<Grant>,
    /// Every namespace may use every Service, whatever `grants` says.
    pub any_service: bool,
    /// Forwards whose newest version cannot be read, and why. Their last readable version stands in `forwards`, if it is
    /// known.
    pub unreadable: BTreeMap<ObjectKey, String>,
    /// TCP ports of the proxy itself, which no listener may claim, with what they are for.
    pub reserved: BTreeMap<u16, String>,
    /// The same of those that only proxies of gateways have.
    pub reserved_in_gateways: BTreeMap<u16, String>,
}

/// Where the proxies run.
#[derive(Clone, Debug, Default)]
pub enum Site {
    /// In a cluster.
    #[default]
    Cluster,
    /// All in one process on one machine.
    Laptop(Laptop),
}

impl Site {
    /// Whether this is a laptop.
    #[must_use]
    pub fn is_laptop(&self) -> bool {
        matches!(self, Self::Laptop(_))
    }
}

/// How ports are shifted on a machine that has taken some of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Laptop {
    /// Added to every listener port.
    pub port_offset: u16,
    /// Ports by (forward name, listener name); these are not shifted.
    pub ports: BTreeMap<(String, String), u16>,
}

/// A Service as far as forwards are concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Service {
    /// With ports and ready endpoints.
    Cluster(Vec<ServicePort>),
    /// Without ports, as a headless Service may be: it says only which pods are ready.
    Portless(BTreeSet<IpAddr>),
    /// A name for a host elsewhere: `ExternalName`, or `--resolve` on a laptop.
    External {
        /// IP address or DNS name.
        host: String,
        /// Port there, if not the Service's own.
        #[serde(default)]
        port: Option<u16>,
    },
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Its protocol.
    pub protocol: Protocol,
    /// The Service's port number.
    pub port: u16,
    /// The ready endpoints behind it.
    #[serde(default)]
    pub endpoints: BTreeSet<Endpoint>,
}

/// A pod as far as forwards are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether it was made with a proxy.
    #[serde(default)]
    pub carries: bool,
    /// Ports that its app listens on, as far as it says so.
    #[serde(default)]
    pub app_ports: BTreeSet<(Transport, u16)>,
    /// What was wrong when it was to be given one.
    #[serde(default)]
    pub problem: Option<String>,
    /// It is being deleted. Its proxy goes on to the end of its app, and is no longer counted.
    #[serde(default)]
    pub leaving: bool,
}

/// Permission to use Services of another namespace (`ReferenceGrant` of the Gateway API).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Grant {
    /// Namespace of the forwards.
    pub from: String,
    /// Namespace of the Services.
    pub to: String,
    /// One Service, or all of them.
    #[serde(default)]
    pub service: Option<String>,
}
