//! The known state of the cluster: plain maps that watches fill.
//!
//! ```text
//! watched ──read──▶ objects ──cache──▶ World, and its changes
//! ```

pub mod agents;
pub mod app_ports;
pub mod cache;
pub mod carrier;
pub mod changes;
pub mod child;
pub mod class;
pub mod crash_loop;
pub mod followers;
pub mod guarded;
pub mod managed_fields;
pub mod objects;
pub mod protected;
pub mod proxy_id;
pub mod reach;
pub mod read;
pub mod rights;
pub mod schema;
pub mod subject;
pub mod watched;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
};

use crds::{ForwardGateway, PortForward, Protocol};
use proxy_api::{Endpoint, Origin, OriginKind, Transport};
use serde::{Deserialize, Serialize, Serializer};

use self::{agents::Agents, protected::ProtectedNetworks, reach::Reach};
use crate::names::API_SERVER;

/// Namespace and name of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// Creates a key from its parts.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// Whether this is the Service of the API server.
    pub(crate) fn is_api_server(&self) -> bool {
        (self.namespace.as_str(), self.name.as_str()) == API_SERVER
    }
}

impl From<&Origin> for ObjectKey {
    fn from(origin: &Origin) -> Self {
        Self::new(&*origin.namespace, &*origin.name)
    }
}

impl From<&ObjectKey> for Origin {
    /// The `PortForward` of this name.
    fn from(key: &ObjectKey) -> Self {
        Self::port_forward(&*key.namespace, &*key.name)
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

/// All input of a translation.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The place where the proxies run.
    pub site: Site,
    /// All forwards, in boxes: a map of large values leaves nearly as much memory unused as it uses.
    pub forwards: BTreeMap<ObjectKey, Box<PortForward>>,
    /// All gateways.
    pub gateways: BTreeMap<ObjectKey, ForwardGateway>,
    /// All agents.
    pub agents: Agents,
    /// Whether every forward may use the agents of its namespace, wherever it runs: the manifests may be for `portlane
    /// run`.
    pub any_agent: bool,
    /// The controller class of each gateway that another operator serves.
    pub foreign_gateways: BTreeMap<ObjectKey, String>,
    /// All Services, with their endpoints.
    pub services: BTreeMap<ObjectKey, Service>,
    /// Addresses among the endpoints of a Service that belong to no pod, as far as the operator knows.
    pub podless: BTreeMap<ObjectKey, BTreeSet<IpAddr>>,
    /// The reach of the fleet of each gateway, where any of it is known.
    pub reach: BTreeMap<ObjectKey, Reach>,
    /// The ready pods of each gateway that has `tunnels`: their addresses by uid, at most
    /// [`MAX_PEERS`](proxy_api::MAX_PEERS).
    pub peers: BTreeMap<ObjectKey, BTreeMap<String, IpAddr>>,
    /// The pods with a sidecar that have an address and are not terminating. Agents may reach a pod before it is ready:
    /// the app may become ready only with connections that its sidecar forwards.
    pub sidecar_pods: BTreeMap<ObjectKey, SidecarPod>,
    /// Addresses of the API server, besides those of its Service.
    pub api_server: BTreeSet<SocketAddr>,
    /// The addresses at which the Service of the API server listens.
    pub api_service: BTreeSet<SocketAddr>,
    /// Networks that the installation protects like the API server.
    pub protected: ProtectedNetworks,
    /// Pods that may have a sidecar.
    pub pods: BTreeMap<ObjectKey, Pod>,
    /// Labels by namespace.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Permissions to use Services of another namespace.
    pub grants: BTreeSet<Grant>,
    /// Whether every namespace may use every Service, regardless of `grants`.
    pub any_service: bool,
    /// Forwards whose newest version cannot be read, with the reason. `forwards` has their last readable version, if
    /// known.
    pub unreadable: BTreeMap<ObjectKey, String>,
    /// Fields that the API server drops from manifests, because the installed CRDs are older than the operator.
    pub dropped: schema::Dropped,
    /// TCP ports of every proxy itself, with their purpose. No listener can claim them.
    pub reserved: BTreeMap<u16, String>,
    /// Further TCP ports that only proxies of gateways reserve, with their purpose.
    pub reserved_in_gateways: BTreeMap<u16, String>,
}

impl World {
    /// The forward of an origin, in its last readable version.
    #[must_use]
    pub fn forward(&self, origin: &Origin) -> Option<&PortForward> {
        let forward = self.forwards.get(&ObjectKey::from(origin)).filter(|_| origin.kind == OriginKind::PortForward);
        forward.map(|forward| &**forward)
    }

    /// Whether an origin exists, readable or not.
    #[must_use]
    pub fn has(&self, origin: &Origin) -> bool {
        self.forward(origin).is_some() || self.unreadable(origin).is_some()
    }

    /// Every origin, readable or not; some may come twice.
    pub fn origins(&self) -> impl Iterator<Item = Origin> {
        self.forwards.keys().chain(self.unreadable.keys()).map(Origin::from)
    }

    /// The origins of a namespace with a readable version.
    pub fn origins_in(&self, namespace: &str) -> impl Iterator<Item = Origin> {
        let here = self.forwards.range(ObjectKey::new(namespace, "")..).map(|(key, _)| key);
        here.take_while(move |key| key.namespace == namespace).map(Origin::from)
    }

    /// The addresses of the API servers: the endpoints of their Service. Empty if the operator may not watch it.
    pub fn api_servers(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let ports = match self.services.get(&ObjectKey::new(API_SERVER.0, API_SERVER.1)) {
            Some(Service::Cluster(ports)) => ports.as_slice(),
            _ => &[],
        };
        ports.iter().flat_map(|port| &port.endpoints).map(|endpoint| endpoint.address)
    }

    /// Why the newest version of an origin cannot be read; `None` if it can.
    #[must_use]
    pub fn unreadable(&self, origin: &Origin) -> Option<&str> {
        let why = self.unreadable.get(&ObjectKey::from(origin)).filter(|_| origin.kind == OriginKind::PortForward);
        why.map(String::as_str)
    }
}

/// The place where the proxies run.
#[derive(Clone, Debug, Default)]
pub enum Site {
    /// In the pods of a cluster.
    #[default]
    Cluster,
    /// All listeners in one process on one machine.
    Laptop(Laptop),
}

impl Site {
    /// Whether the site is a laptop.
    #[must_use]
    pub fn is_laptop(&self) -> bool {
        matches!(self, Self::Laptop(_))
    }

    /// Why a backend cannot be reached from the laptop, if that is known.
    #[must_use]
    pub fn unreachable(&self, backend: &ServiceBackend) -> Option<&str> {
        match self {
            Self::Cluster => None,
            Self::Laptop(laptop) => laptop.unreachable.get(backend).map(String::as_str),
        }
    }
}

/// How listener ports are mapped on a laptop, where other programs may use some of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Laptop {
    /// Offset that is added to every requested port.
    pub port_offset: u16,
    /// Ports by (forward name, listener name), to which the offset does not apply.
    pub ports: BTreeMap<(String, String), u16>,
    /// Backends that cannot be reached from this machine, each with a sentence that names the Service and the reason.
    pub unreachable: BTreeMap<ServiceBackend, String>,
}

/// A port of a Service as a backend of a listener uses it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceBackend {
    /// The Service.
    pub service: ObjectKey,
    /// Port number of the Service; the first one of a range.
    pub port: u16,
    /// Transport of the listener.
    pub transport: Transport,
    /// Whether the listener has a range of ports, each of which leads to another port of the pods.
    pub is_range: bool,
}

/// A Service as a destination of forwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Service {
    /// A Service with ports and their ready endpoints.
    Cluster(Vec<ServicePort>),
    /// A headless Service without ports, with the addresses of its ready pods.
    Portless(BTreeSet<IpAddr>),
    /// An alias of another host: `ExternalName`, or `--resolve` on a laptop.
    External {
        /// IP address or DNS name.
        host: String,
        /// Port on that host; absent: the port that the backend names.
        #[serde(default)]
        port: Option<u16>,
    },
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Protocol of the port.
    pub protocol: Protocol,
    /// Port number of the Service.
    pub port: u16,
    /// Ready endpoints of the port.
    #[serde(default)]
    pub endpoints: BTreeSet<Endpoint>,
}

/// A pod that sidecar forwards may select.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Labels of the pod.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether the pod was created with a proxy.
    #[serde(default)]
    pub carries: bool,
    /// Ports that the app listens on, by the annotation `portlane.dev/app-ports`.
    #[serde(default)]
    pub app_ports: BTreeSet<(Transport, u16)>,
    /// Why injection failed or ignored an annotation.
    #[serde(default)]
    pub problem: Option<String>,
    /// Whether the pod is being deleted. Its proxy keeps running until the app ends, but status no longer counts the
    /// pod.
    #[serde(default)]
    pub leaving: bool,
}

/// A pod with a sidecar, as agents reach it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SidecarPod {
    /// UID of the pod.
    pub uid: String,
    /// Creation time, seconds since 1970.
    #[serde(default)]
    pub created: Option<u64>,
    /// Address of the pod.
    pub address: IpAddr,
    /// Whether the pod is being deleted. Its proxy keeps running until the app ends.
    #[serde(default)]
    pub leaving: bool,
}

/// Permission to use Services of another namespace (`ReferenceGrant` of the Gateway API).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Grant {
    /// Kind of the objects that may use the Services.
    #[serde(default)]
    pub kind: OriginKind,
    /// Namespace of those objects.
    pub from: String,
    /// Namespace of the Services.
    pub to: String,
    /// Name of one Service; absent: all Services of the namespace.
    #[serde(default)]
    pub service: Option<String>,
}
