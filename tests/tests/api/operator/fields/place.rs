//! Where the forward under test runs. Manifests and expectations are the same everywhere.

use crds::PortForward;
use harness::{
    Backend, Fleet, FleetPod, FleetProxy, Listener, Namespace, Operator, Program, forward, free_port, http_get, metric,
};
use serde_json::{Value, json};

use super::{super::own_address, servers};

/// The placement that `harness::forward` writes.
const ANYWHERE: &str = "{sidecar: {selector: {}}}";

pub(super) enum Place<'a> {
    /// `portlane run`, which follows a file. `has_names`: a hosts file of its own has the name `pair.test`.
    Laptop { program: Program, health: u16, has_names: bool },
    /// A proxy that follows an operator, which reads objects from an API server.
    Cluster { namespace: &'a Namespace<'a>, placement: &'static str, proxy: FleetProxy, _operator: Operator },
}

impl<'a> Place<'a> {
    pub(super) fn laptop() -> Self {
        let health = free_port();
        let nothing = forward("it", "suspend: true", &[Listener::tcp("l", free_port()).to(9)]);
        let hosts = "127.0.0.2 pair.test\n127.0.0.3 pair.test\n";
        let named = Program::run_with_hosts(&nothing, health, hosts);
        let has_names = named.is_some();
        Self::Laptop { program: named.unwrap_or_else(|| Program::run(&nothing, health, &[])), health, has_names }
    }

    pub(super) fn sidecar(namespace: &'a Namespace<'a>) -> Self {
        let operator = Operator::start(namespace);
        let (_, proxy) = FleetPod::with_sidecar(namespace, &operator);
        let placement = "{sidecar: {selector: {matchLabels: {app: shop}}}}";
        Self::Cluster { namespace, placement, proxy, _operator: operator }
    }

    pub(super) fn gateway(namespace: &'a Namespace<'a>) -> Self {
        let Fleet { proxy, operator, .. } = Fleet::open(namespace);
        Self::Cluster { namespace, placement: "{gateway: {name: edge}}", proxy, _operator: operator }
    }

    /// Writes both forwards, `it` that changes and `other` that does not, each one YAML document.
    pub(super) fn apply(&self, it: &str, other: &str) {
        match self {
            Self::Laptop { program, .. } => program.edit(&format!("{it}{other}")),
            Self::Cluster { namespace, placement, .. } => {
                for forward in [it, other] {
                    namespace.write::<PortForward>(&forward.replace(ANYWHERE, placement));
                }
            }
        }
    }

    /// Two servers behind one backend, and the backend as YAML inside braces: a name with two addresses, or a Service.
    /// `None` where the name cannot be had.
    pub(super) fn pair(&self) -> Option<([Backend; 2], String)> {
        let pair = match self {
            Self::Laptop { has_names: false, .. } => return None,
            Self::Laptop { .. } => {
                let port = free_port();
                let pair = [(2, b'p'), (3, b'q')].map(|(last, name)| servers::named_at([127, 0, 0, last], port, name));
                (pair, format!("address: {{host: pair.test, port: {port}}}"))
            }
            Self::Cluster { namespace, .. } => {
                let pair = [servers::named(b'p'), servers::named(b'q')];
                namespace.apply(
                    "{apiVersion: v1, kind: Service, metadata: {name: pair}, spec: {clusterIP: None, ports: [{name: p, port: 80}]}}",
                );
                for (at, server) in pair.iter().enumerate() {
                    let metadata =
                        json!({"name": format!("pair-{at}"), "labels": {"kubernetes.io/service-name": "pair"}});
                    let slice = json!({
                        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
                        "addressType": "IPv4", "ports": [{"name": "p", "port": server.port}],
                        "endpoints": [{"addresses": [own_address()], "conditions": {"ready": true}}],
                    });
                    namespace.apply(&slice.to_string());
                }
                (pair, "service: {name: pair, port: 80}".to_owned())
            }
        };
        Some(pair)
    }

    /// The value of a series of the forward that changes; 0 while the series is missing.
    pub(super) fn metric(&self, name: &str, more: &str) -> f64 {
        let (health, namespace) = match self {
            Self::Laptop { health, .. } => (*health, "default"),
            Self::Cluster { namespace, proxy, .. } => (proxy.health, namespace.name()),
        };
        let text = http_get(health, "/metrics").map(|(_, text)| text).unwrap_or_default();
        let series =
            format!("{name}{{kind=\"PortForward\",namespace=\"{namespace}\",forward=\"it\",listener=\"l\"{more}");
        metric(&text, &series).unwrap_or(0.0)
    }

    /// Lines of the log with this event of a session of the forward that changes.
    pub(super) fn logged(&self, event: &str) -> usize {
        let events = match self {
            Self::Laptop { program, .. } => program.events(),
            Self::Cluster { proxy, .. } => proxy.program.events(),
        };
        let is = |line: &&Value| line["event"] == event && line["forward"] == "it";
        events.iter().filter(is).count()
    }
}
