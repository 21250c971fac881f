//! A node with everything that strangers can reach, a hostile pod, and what has to keep working while that pod attacks.

mod figures;
mod hostile_namespace;
mod long_session;
mod objects;
mod operations;
mod outcomes;

use std::{
    fs, io,
    net::{IpAddr, SocketAddr, TcpStream},
    panic::resume_unwind,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crds::PortForward;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Pod, Service},
};
use kube::{Api, api::ListParams};

use self::{hostile_namespace::HostileNamespace, objects::forward};
pub use self::{
    long_session::Held,
    operations::{Done, Operation},
    outcomes::Outcomes,
};
use super::{Namespace, Node, OPERATOR, block_on, install, scene::until_ready};
use crate::{Attack, Door, Force, Speaks, greeting, until};

/// Lifetime of the serving certificates, seconds. They are renewed at half of it.
const CERTIFICATE_SECONDS: u32 = 16;
/// Pause between two rounds of what is done all the time.
const PAUSE: Duration = Duration::from_millis(50);
/// Label of the proxies of the gateway.
const EDGE: &str = "portlane.dev/gateway=edge";
/// A port of a pod: name for people, number, what it expects, and the size of the crowd there.
type Port = (&'static str, u16, Speaks, usize);
/// Ports of a replica of the operator.
const OF_OPERATOR: [Port; 4] = [
    ("operator: stream", 9443, Speaks::Http2, 1),
    ("operator: webhook", WEBHOOK, Speaks::Https, 2),
    ("operator: metrics API", 9445, Speaks::Https, 1),
    ("operator: health", HEALTH_OF_OPERATOR, Speaks::Http, 1),
];
/// Ports of a proxy of the gateway.
const OF_PROXY: [Port; 9] = [
    ("proxy: health", HEALTH_OF_PROXY, Speaks::Http, 1),
    ("proxy: listener", PLAIN, Speaks::Bytes, 3),
    ("proxy: listener, PROXY header", HEADER, Speaks::Header, 3),
    ("proxy: listener, server name", SERVER_NAME, Speaks::ServerName, 1),
    ("proxy: listener, datagrams", FLOODED, Speaks::Datagrams, 1),
    ("proxy: agents", AGENTS, Speaks::Https, 1),
    ("proxy: durable listener, RELP", MESSAGES, Speaks::Bytes, 1),
    ("proxy: durable listener, lines", LINES, Speaks::Bytes, 3),
    ("proxy: durable listener, datagrams", KEPT_DATAGRAMS, Speaks::Datagrams, 1),
];
/// Ports of the pod whose sidecar stays.
const OF_SIDECAR: [Port; 3] = [
    ("sidecar: health", HEALTH_OF_PROXY, Speaks::Http, 1),
    ("sidecar: listener", SIDECAR, Speaks::Bytes, 1),
    ("sidecar: agents", AGENTS_OF_SIDECAR, Speaks::Https, 1),
];
/// Port of the webhook of a replica.
const WEBHOOK: u16 = 9444;
const HEALTH_OF_OPERATOR: u16 = 9080;
const HEALTH_OF_PROXY: u16 = 9180;
/// Port of the listener that expects nothing.
const PLAIN: u16 = 80;
/// Port of the listener that requires a PROXY header.
const HEADER: u16 = 81;
/// Port of the listener that is chosen by the server name.
const SERVER_NAME: u16 = 443;
/// UDP port of the listener whose clients behave.
const DATAGRAMS: u16 = 53;
/// UDP port of the forward that is flooded.
const FLOODED: u16 = 5353;
/// Port for agents of the gateway.
const AGENTS: u16 = 7443;
/// Port for agents of a sidecar.
const AGENTS_OF_SIDECAR: u16 = 9182;
/// Port of the durable listener for RELP, whose clients behave.
const MESSAGES: u16 = 5514;
/// Port of the durable listener for lines. Those of the attack do not end.
const LINES: u16 = 5515;
/// UDP port of the durable listener for datagrams.
const KEPT_DATAGRAMS: u16 = 5516;
/// Port that a sidecar opens.
const SIDECAR: u16 = 8001;

/// Both charts with the metrics API, a gateway of two proxies that lets agents in, a forward with listeners of each kind, one
/// with durable listeners, a forward for sidecars, a pod whose sidecar stays, a forward to flood, a pod to attack from, and
/// pods of another namespace whose proxies lie. Serving certificates rotate every few seconds.
pub struct Siege<'a> {
    node: &'a Node,
    namespace: Namespace<'a>,
    /// Address of the gateway's Service.
    service: IpAddr,
    /// A process of the hostile pod.
    attacker: u32,
    hostile: HostileNamespace<'a>,
    /// Pods with a sidecar so far.
    pods: AtomicUsize,
    /// The session that is held all the time, unless it is broken.
    long_session: Mutex<Option<TcpStream>>,
    /// When everything worked for the first time.
    begun: Instant,
}

impl<'a> Siege<'a> {
    /// Installs everything on a node of the caller's own, and waits until it works.
    #[track_caller]
    pub fn prepare(node: &'a Node) -> Self {
        let rotation = format!("extraEnv[0].name=PORTLANE_CERTIFICATE_SECONDS,extraEnv[0].value={CERTIFICATE_SECONDS}");
        install(node, &["--set", "customMetrics.enabled=true,tunnels.enabled=true", "--set-string", &rotation]);
        let namespace = node.namespace("siege").for_pods();
        namespace.apply(&objects::first());
        namespace.write::<PortForward>(&forward("web"));
        for forward in ["web", "flooded", "kept"] {
            until_ready(&namespace, forward, "True", "Ready");
        }
        for object in ["forwardgateway/edge", "pod/attacker", "pod/web", "pod/other", "pod/sink"] {
            namespace.kubectl(&["wait", "--for=condition=Ready", object, "--timeout=180s"]).ok();
        }
        let service: Service = namespace.get("edge").expect("the gateway's Service");
        let service = service.spec.and_then(|spec| spec.cluster_ip).expect("an address");
        let attacker = process_of(node, "attacker");
        let service = service.parse().expect("an address");
        let hostile = HostileNamespace::prepare(node);
        let pods = AtomicUsize::new(0);
        let (long_session, begun) = (Mutex::default(), Instant::now());
        let mut siege = Self { node, namespace, service, attacker, hostile, pods, long_session, begun };
        // What is new takes a moment: Services route, the aggregator finds the leader, API servers trust the webhook.
        for operation in Operation::QUICK {
            until(operation.name(), || siege.run(operation).is_ok());
        }
        // The webhook answers now, so that the pod gets its sidecar.
        siege.namespace.apply(objects::WITH_SIDECAR);
        siege.namespace.kubectl(&["wait", "--for=condition=Ready", "pod/stays", "--timeout=180s"]).ok();
        until("a replica that stays leads", || siege.leader().is_some());
        until(Operation::Metric.name(), || siege.run(Operation::Metric).is_ok());
        // These ports are open once there is a certificate for them.
        for door in siege.doors().iter().filter(|door| [AGENTS, AGENTS_OF_SIDECAR].contains(&door.at.port())) {
            until(&format!("{} is open", door.name), || node.connect(door.at).is_ok());
        }
        until("a session in the sidecar that stays is open", || {
            siege.long_session = Mutex::new(siege.open_session().ok());
            siege.long_session.get_mut().is_ok_and(|session| session.is_some())
        });
        siege.begun = Instant::now();
        siege
    }

    /// All doors of the pods that are there now.
    pub fn doors(&self) -> Vec<Door> {
        let of = |pods: Vec<Pod>, ports: &'static [Port]| {
            let addresses: Vec<IpAddr> = pods.iter().filter_map(address).collect();
            addresses.into_iter().flat_map(move |ip| ports.iter().map(move |port| door(ip, *port)))
        };
        let gateway = of(self.operators(), &OF_OPERATOR).chain(of(self.proxies(), &OF_PROXY));
        gateway.chain(of(self.sidecars(), &OF_SIDECAR)).collect()
    }

    /// Attacks all doors from the hostile pod, where proxies that lie have moved in.
    #[must_use]
    pub fn attack(&self, force: Force) -> Attack {
        let attack = Attack::start(self.attacker, force, self.hostile.proxies.clone());
        attack.aim(self.doors());
        attack
    }

    /// Time since everything worked.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Does what is quick all the time while `work` runs, and holds a session.
    pub fn meanwhile<T>(&self, work: impl FnOnce() -> T) -> (T, Outcomes) {
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let session = scope.spawn(|| self.hold(&ended));
            let visits = scope.spawn(|| {
                let mut outcomes = Outcomes::default();
                while !ended.load(Relaxed) {
                    for operation in Operation::QUICK {
                        outcomes.add(operation, self.run_explained(operation));
                    }
                    thread::park_timeout(PAUSE);
                }
                outcomes
            });
            let ending = Ending(&ended);
            let done = work();
            drop(ending);
            let mut outcomes = visits.join().unwrap_or_else(|panic| resume_unwind(panic));
            outcomes.held = session.join().unwrap_or_else(|panic| resume_unwind(panic));
            (done, outcomes)
        })
    }

    /// What the conditions of our forwards say about proxies that lie: those are somebody else's.
    pub fn accused(&self) -> Vec<String> {
        let ours = ["web", "flooded", "inside", "kept", "stays"];
        let forwards = ours.into_iter().filter_map(|name| self.namespace.get::<PortForward>(name));
        let conditions = forwards.filter_map(|forward| forward.status).flat_map(|status| status.conditions);
        conditions.map(|condition| condition.message).filter(|message| hostile_namespace::is_named(message)).collect()
    }

    /// What the backend of a new session says first, after this opening.
    fn greeted(&self, at: SocketAddr, opening: &[u8]) -> io::Result<String> {
        let mut session = self.node.connect(at)?;
        io::Write::write_all(&mut session, opening)?;
        greeting(&mut session)
    }

    /// The replicas of the operator that stay.
    fn operators(&self) -> Vec<Pod> {
        self.staying(OPERATOR, "app.kubernetes.io/component=operator")
    }

    /// The proxies of the gateway that stay.
    fn proxies(&self) -> Vec<Pod> {
        self.staying(self.namespace.name(), EDGE)
    }

    /// The pod whose sidecar stays.
    fn sidecars(&self) -> Vec<Pod> {
        self.staying(self.namespace.name(), "app=stays")
    }

    /// Pods with an address that are not being deleted.
    #[track_caller]
    fn staying(&self, namespace: &str, labels: &str) -> Vec<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.node.client(), namespace);
        let listed = block_on(async { pods.list(&ListParams::default().labels(labels)).await });
        let mut pods = listed.unwrap_or_else(|error| panic!("cannot list pods: {error}")).items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none() && address(pod).is_some());
        pods
    }

    /// The replica that leads. Absent: none of those that stay.
    #[track_caller]
    fn leader(&self) -> Option<String> {
        let leases: Api<Lease> = Api::namespaced(self.node.client(), OPERATOR);
        let lease = block_on(async { leases.get_opt("portlane-operator").await });
        let lease = lease.unwrap_or_else(|error| panic!("cannot read the Lease: {error}"))?;
        let holder = lease.spec?.holder_identity?;
        let pod = holder.split('_').next().unwrap_or_default();
        let stays = self.operators().iter().any(|one| one.metadata.name.as_deref() == Some(pod));
        stays.then(|| pod.to_owned())
    }

    fn next_pod(&self) -> String {
        format!("app-{}", self.pods.fetch_add(1, Relaxed))
    }
}

/// Sets the flag on drop, also if the work panics.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn door(ip: IpAddr, (name, port, speaks, crowd): Port) -> Door {
    Door { name, at: (ip, port).into(), speaks, crowd }
}

fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

/// A process of a pod that runs the echo program.
#[track_caller]
fn process_of(node: &Node, pod: &str) -> u32 {
    let name = format!("HOSTNAME={pod}");
    let is_of = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == name.as_bytes())
    };
    let process = node.processes("portlane-echo").into_iter().find(is_of);
    process.unwrap_or_else(|| panic!("pod {pod} has no process"))
}
