//! The operator as a user installs it, and a fleet: shared by the tests of the operator.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

pub(crate) use harness::{CHARTS, OPERATOR, greeting, install};
use harness::{Cluster, Namespace, Node, round_trip, until};
use k8s_openapi::api::core::v1::Pod;

use crate::shared;

/// Longest time for a fleet to change its size: an HPA sees the load and decides, pods start, or drain and are removed.
pub(crate) const SCALED: Duration = Duration::from_secs(180);

/// The shared cluster with the operator installed, once for all tests.
pub(crate) fn operated() -> &'static Cluster {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    let cluster = shared::cluster();
    let values = ["--set", "customMetrics.enabled=true,tunnels.enabled=true,claims.enabled=true"];
    INSTALLED.get_or_init(|| install(cluster, &values));
    cluster
}

const BACKEND: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME}
spec:
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec:
      terminationGracePeriodSeconds: 0
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: echo
        image: localhost/portlane/echo:0.1.0
        imagePullPolicy: Never
        args: [serve, --address, 'ADDRESS', --port, '8000', --name, 'NAME: ']
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {name: NAME}
spec:
  selector: {app: NAME}
  ports:
  - {name: tcp, port: 80, targetPort: 8000, protocol: TCP}
  - {name: udp, port: 80, targetPort: 8000, protocol: UDP}
";

/// A forward of one TCP and one UDP port in the gateway `edge`.
pub(crate) fn forward(backend: &str) -> String {
    format!(
        "apiVersion: portlane.dev/v1alpha1
kind: PortForward
metadata: {{name: web}}
spec:
  placement: {{gateway: {{name: edge}}}}
  listeners:
  - {{name: tcp, protocol: TCP, port: 80, backends: [{{service: {{name: {backend}, port: 80}}}}]}}
  - {{name: udp, protocol: UDP, port: 80, backends: [{{service: {{name: {backend}, port: 80}}}}]}}
"
    )
}

/// A gateway with two proxies.
pub(crate) const GATEWAY: &str = "{apiVersion: portlane.dev/v1alpha1, kind: ForwardGateway, metadata: {name: edge}, spec: {replicas: 2, drainSeconds: 5}}";

/// A namespace with the most restricted profile of Pod Security, two backends and a client.
pub(crate) fn shop<'a>(cluster: &'a Cluster, purpose: &str) -> Namespace<'a> {
    shop_on(cluster, purpose, "0.0.0.0")
}

/// As [`shop`], with backends that listen on this address.
pub(crate) fn shop_on<'a>(cluster: &'a Cluster, purpose: &str, address: &str) -> Namespace<'a> {
    let namespace = cluster.namespace(purpose).for_pods().restricted();
    for name in ["web", "other"] {
        namespace.apply(&BACKEND.replace("NAME", name).replace("ADDRESS", address));
    }
    client(&namespace);
    namespace
}

/// The pod of [`call`], which the most restricted profile of Pod Security admits.
pub(crate) fn client(namespace: &Namespace<'_>) {
    namespace.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: client}, spec: {terminationGracePeriodSeconds: 0, securityContext: \
         {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}, containers: [{name: client, image: \
         'localhost/portlane/echo:0.1.0', args: [pause], securityContext: {allowPrivilegeEscalation: false, capabilities: \
         {drop: [ALL]}}}]}}",
    );
    namespace.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=180s"]).ok();
}

/// Waits until an object is ready, with `kubectl wait`. Panics with the description of all objects and the operator's
/// log.
pub(crate) fn wait_for(namespace: &Namespace<'_>, object: &str) {
    let output = namespace.kubectl(&["wait", "--for=condition=Ready", object, "--timeout=180s"]);
    if !output.success {
        let story = namespace.kubectl(&["describe", "portlane"]).stdout;
        let log =
            namespace.cluster().kubectl(&["logs", "-n", OPERATOR, "deploy/portlane-operator", "--tail=20"]).stdout;
        panic!("{}\n{story}\n{log}", output.stderr);
    }
}

/// The answer to a greeting of the client through the gateway's Service.
pub(crate) fn call(namespace: &Namespace<'_>, protocol: &str) -> String {
    let output = namespace.kubectl(&["exec", "client", "--", "/portlane-echo", "call", protocol, "edge:80", "hello"]);
    output.stdout.trim_end().to_owned()
}

/// The proxies of the fleet: name of the pod, address of its TCP listener. Without pods that have no address or are
/// being deleted meanwhile.
pub(crate) fn proxies(namespace: &Namespace<'_>) -> Vec<(String, SocketAddr)> {
    let names = namespace.kubectl(&["get", "pods", "-l", "portlane.dev/gateway=edge", "-o", "name"]).ok();
    let proxy = |name: &str| {
        let name = name.trim_start_matches("pod/");
        let ip = namespace.get::<Pod>(name)?.status?.pod_ip?;
        Some((name.to_owned(), SocketAddr::new(ip.parse().expect("an address"), 80)))
    };
    names.lines().filter_map(proxy).collect()
}

/// Sessions with one round trip after the other, of which none may break. Between rounds the load leaves the cores to
/// the cluster: several loads that never pause keep API server and kubelet from their work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    work: JoinHandle<io::Result<usize>>,
    round_trips: Arc<AtomicUsize>,
    clients: Vec<SocketAddr>,
}

impl Load {
    /// So many sessions, in turn to these addresses.
    pub(crate) fn start(node: &Node, addresses: &[SocketAddr], sessions: usize) -> Self {
        let open = |at: usize| node.connect(addresses[at % addresses.len()]).expect("the proxy listens");
        let mut sessions: Vec<TcpStream> = (0..sessions).map(open).collect();
        for session in &mut sessions {
            greeting(session).expect("a greeting");
        }
        let clients = sessions.iter().map(|session| session.local_addr().expect("an address")).collect();
        let (stop, round_trips) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (stop.clone(), round_trips.clone());
        let work = thread::spawn(move || {
            let live = sessions.len();
            while !stopped.load(Relaxed) {
                let begun = Instant::now();
                for session in &mut sessions {
                    if round_trip(session, b"load")? != b"load" {
                        return Err(io::Error::other("the echo differs from what was sent"));
                    }
                    count.fetch_add(1, Relaxed);
                }
                thread::park_timeout(
                    (begun.elapsed() * 2).clamp(Duration::from_millis(10), Duration::from_millis(100)),
                );
            }
            Ok(live)
        });
        Self { stop, work, round_trips, clients }
    }

    /// Addresses of the clients of the sessions.
    pub(crate) fn clients(&self) -> Vec<SocketAddr> {
        self.clients.clone()
    }

    /// Round trips so far.
    pub(crate) fn round_trips(&self) -> usize {
        self.round_trips.load(Relaxed)
    }

    /// Ends the load; gives the number of round trips.
    #[track_caller]
    pub(crate) fn stop(self) -> usize {
        self.stop.store(true, Relaxed);
        let ended = self.work.join().expect("the load does not panic");
        ended.unwrap_or_else(|error| panic!("a session broke: {error}"));
        self.round_trips.load(Relaxed)
    }
}

/// Waits until a proxy that leaves accepts no new sessions, and then until the load has continued for a while: the
/// proxy drains and keeps its sessions.
#[track_caller]
pub(crate) fn until_it_drains(node: &Node, address: SocketAddr, load: &Load) {
    until("the proxy accepts no new sessions", || node.connect(address).is_err());
    let seen = load.round_trips();
    until("sessions continue while the proxy drains", || load.round_trips() > seen + 500);
}
