//! Messages of durable listeners in a cluster: a fleet on claims that shrinks and grows, and a sidecar whose proxy is
//! killed.

use std::{
    collections::BTreeSet,
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use harness::{Namespace, Node, send_relp, serve_relp, until, until_within};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{PersistentVolumeClaim, Pod},
};

use crate::{
    fleet::{SCALED, operated, proxies, wait_for},
    outage::kill_proxy,
    shared,
};

/// Messages of a client without an answer.
const WINDOW: usize = 8;
/// Pause between two windows of a client, and between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(20);
/// How often a sink looks whether it has to end.
const LOOK: Duration = Duration::from_millis(50);
/// Clients of each pod.
const CLIENTS: usize = 2;
/// Messages that each pod has for a sink that is away, at least.
const BACKLOG: usize = 100;
/// Volumes: one for each pod, one for the pod that comes after the claim of its ordinal has gone, and one to spare.
const VOLUMES: usize = 5;

/// A machine outside of the cluster that speaks RELP and takes everything, while it is there.
pub(crate) struct Sink<'a> {
    node: &'a Node,
    at: SocketAddr,
    taken: Arc<Mutex<BTreeSet<String>>>,
    there: Option<There>,
}

/// A sink that is there until this is dropped.
struct There {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<'a> Sink<'a> {
    /// A sink at this address of the host of the node. It is away at first.
    pub(crate) fn at(node: &'a Node, at: &str) -> Self {
        let at: SocketAddr = at.parse().expect("an address");
        let mut ip = node.command("ip");
        ip.args(["address", "replace", &format!("{}/32", at.ip()), "dev", "lo"]);
        assert!(ip.status().expect("ip runs").success());
        Self { node, at, taken: Arc::default(), there: None }
    }

    pub(crate) fn comes(&mut self) {
        let listener = self.node.within(|| TcpListener::bind(self.at)).expect("the address is free");
        listener.set_nonblocking(true).expect("an option");
        let (stop, taken) = (Arc::<AtomicBool>::default(), self.taken.clone());
        let stopped = stop.clone();
        let thread = thread::spawn(move || listen(&listener, &stopped, &taken));
        self.there = Some(There { stop, thread: Some(thread) });
    }

    fn goes(&mut self) {
        self.there = None;
    }

    /// Messages of this list that never came.
    pub(crate) fn lacks(&self, messages: &[String]) -> Vec<String> {
        let taken = self.taken.lock().expect("unpoisoned");
        messages.iter().filter(|message| !taken.contains(*message)).cloned().collect()
    }
}

impl Drop for There {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // A sink that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn listen(listener: &TcpListener, stop: &AtomicBool, taken: &Mutex<BTreeSet<String>>) {
    thread::scope(|scope| {
        while !stop.load(Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => drop(scope.spawn(move || serve(stream, stop, taken))),
                Err(_) => thread::park_timeout(LOOK),
            }
        }
    });
}

/// Answers what was taken, until the client has left or the sink goes.
fn serve(stream: TcpStream, stop: &AtomicBool, taken: &Mutex<BTreeSet<String>>) {
    stream.set_read_timeout(Some(LOOK)).expect("an option");
    let take = |message: String| {
        taken.lock().expect("unpoisoned").insert(message);
    };
    serve_relp(stream, || !stop.load(Relaxed), take);
}

/// A message that a pod has answered, so that it is on its disk.
struct Answer {
    message: String,
    /// The address that the client was connected to.
    by: SocketAddr,
}

type Answers = Arc<Mutex<Vec<Answer>>>;

/// Clients that send numbered messages over RELP until they are stopped.
struct Senders {
    stop: Arc<AtomicBool>,
    answers: Answers,
    threads: Vec<JoinHandle<()>>,
}

impl Senders {
    /// So many clients at each of these addresses. One whose connection breaks continues at the address `then`.
    fn start(node: &'static Node, addresses: &[SocketAddr], then: SocketAddr) -> Self {
        let (stop, answers) = (Arc::<AtomicBool>::default(), Answers::default());
        let first = addresses.iter().flat_map(|address| [*address; CLIENTS]);
        let start = |(number, first): (usize, SocketAddr)| {
            let (stop, answers) = (stop.clone(), answers.clone());
            let client = Client { name: format!("client-{number}"), next: 0, stop, answers };
            thread::spawn(move || client.run(node, first, then))
        };
        let threads = first.enumerate().map(start).collect();
        Self { stop, answers, threads }
    }

    /// Messages that were answered at this address.
    fn answered_by(&self, address: SocketAddr) -> Vec<String> {
        let answers = self.answers.lock().expect("unpoisoned");
        answers.iter().filter(|answer| answer.by == address).map(|answer| answer.message.clone()).collect()
    }

    /// All messages that were answered.
    fn answered(&self) -> Vec<String> {
        self.answers.lock().expect("unpoisoned").iter().map(|answer| answer.message.clone()).collect()
    }

    /// Ends the clients. Returns all messages that were answered.
    fn stop(mut self) -> Vec<String> {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a client does not panic");
        }
        self.answered()
    }
}

impl Drop for Senders {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

struct Client {
    name: String,
    /// Every message before this one was answered.
    next: u64,
    stop: Arc<AtomicBool>,
    answers: Answers,
}

impl Client {
    fn run(mut self, node: &Node, first: SocketAddr, then: SocketAddr) {
        let mut to = first;
        while !self.stop.load(Relaxed) {
            // A pod that ends closes its connections, and others may not be ready yet.
            if node.connect(to).and_then(|stream| self.session(stream, to)).is_err() {
                thread::park_timeout(PAUSE);
            }
            to = then;
        }
    }

    /// Sends from the first message without an answer on, until the client is stopped and its last message is answered.
    fn session(&mut self, stream: TcpStream, to: SocketAddr) -> io::Result<()> {
        let Self { name, next, stop, answers } = self;
        let (first, text) = (*next, |number: u64| format!("{name} {number}"));
        let message = |number: u64| (!stop.load(Relaxed)).then(|| text(number));
        send_relp(stream, WINDOW, first, message, |through| {
            let news = (*next..=through).map(|number| Answer { message: text(number), by: to });
            answers.lock().expect("unpoisoned").extend(news);
            *next = through + 1;
            thread::park_timeout(PAUSE);
        })
    }
}

/// A namespace with the most restricted profile of Pod Security.
pub(crate) fn restricted(purpose: &str) -> Namespace<'static> {
    operated().namespace(purpose).for_pods().restricted()
}

/// Volumes on the disk of the node, of a class with the name of the namespace. `binding` says when they are bound.
pub(crate) fn volumes(node: &Node, namespace: &Namespace<'_>, binding: &str) {
    let class = namespace.name();
    let mut manifests = format!(
        "{{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {{name: {class}}}, provisioner: \
         kubernetes.io/no-provisioner, volumeBindingMode: {binding}}}"
    );
    for number in 0..VOLUMES {
        let path = format!("/run/{class}/{number}");
        assert!(
            node.command("mkdir").args(["--parents", "--mode=0777", &path]).status().expect("mkdir runs").success()
        );
        manifests += &format!(
            "\n---\n{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: {class}-{number}}}, spec: {{capacity: \
             {{storage: 1Gi}}, accessModes: [ReadWriteOnce], persistentVolumeReclaimPolicy: Retain, storageClassName: \
             {class}, local: {{path: {path}}}, nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: \
             [{{key: kubernetes.io/hostname, operator: Exists}}]}}]}}}}}}}}"
        );
    }
    namespace.apply(&manifests);
}

/// A forward `logs` that takes RELP and sends RELP to the sink.
fn forward(placement: &str, sink: SocketAddr) -> String {
    let (host, port) = (sink.ip(), sink.port());
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: logs}}, spec: {{placement: {placement}, \
         listeners: [{{name: relp, protocol: TCP, bind: All, port: 80, durable: {{framing: Relp, send: {{relp: {{}}}}, \
         store: {{disk: {{maxBytes: 16777216}}}}}}, backends: [{{address: {{host: {host}, port: {port}}}}}]}}]}}}}"
    )
}

/// Scales the gateway, and waits until so many of its pods are ready.
fn scale(namespace: &Namespace<'_>, replicas: usize) {
    namespace.kubectl(&["scale", "forwardgateway/edge", &format!("--replicas={replicas}")]).ok();
    until_within(SCALED, "the fleet has the size that was asked for", || {
        let sizes = "--output=jsonpath={.status.replicas} {.status.readyReplicas}";
        namespace.kubectl(&["get", "statefulset", "edge", sizes]).stdout == format!("{replicas} {replicas}")
    });
}

fn claim(namespace: &Namespace<'_>, ordinal: usize) -> Option<PersistentVolumeClaim> {
    namespace.get(&format!("messages-edge-{ordinal}"))
}

/// The uid of the claim of a pod, which stays.
fn kept_claim(namespace: &Namespace<'_>, ordinal: usize) -> Option<String> {
    let metadata = claim(namespace, ordinal).expect("it has messages").metadata;
    assert!(metadata.deletion_timestamp.is_none(), "messages-edge-{ordinal} has messages");
    metadata.uid
}

/// Waits until a Job sends the messages on the claim of a pod. Returns its uid.
fn drainer(namespace: &Namespace<'_>, ordinal: usize) -> Option<String> {
    let runs = |job: &Job| job.status.as_ref().and_then(|status| status.ready) == Some(1);
    namespace.until(&format!("edge-drain-{ordinal}"), "runs", runs).metadata.uid
}

#[test]
fn a_fleet_on_claims_that_shrinks_and_grows_under_load_loses_no_message_that_was_answered() {
    let Some(node) = shared::node_with_a_host() else { return };
    let namespace = restricted("durable");
    volumes(node, &namespace, "Immediate");
    let mut sink = Sink::at(node, "198.51.100.30:2514");
    sink.comes();
    namespace.apply(&format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: ForwardGateway, metadata: {{name: edge}}, spec: {{replicas: 3, \
         drainSeconds: 1, durability: {{volumeClaim: {{size: 1Gi, storageClassName: {}}}}}}}}}",
        namespace.name()
    ));
    namespace.apply(&forward("{gateway: {name: edge}}", sink.at));
    scale(&namespace, 3);
    wait_for(&namespace, "portforward/logs");
    let service = namespace.kubectl(&["get", "service", "edge", "--output=jsonpath={.spec.clusterIP}:80"]).ok();
    let service: SocketAddr = service.parse().expect("an address");
    until("the Service routes", || node.connect(service).is_ok());
    let (names, pods): (Vec<String>, Vec<SocketAddr>) = proxies(&namespace).into_iter().unzip();
    assert_eq!(names, ["edge-0", "edge-1", "edge-2"]);

    let senders = Senders::start(node, &pods, service);
    until("messages of each pod arrive", || {
        pods.iter().all(|pod| {
            let answered = senders.answered_by(*pod);
            sink.lacks(&answered).len() < answered.len()
        })
    });
    sink.goes();
    let waiting = |pod: &SocketAddr| sink.lacks(&senders.answered_by(*pod)).len();
    until("each pod has messages that wait", || pods.iter().all(|pod| waiting(pod) >= BACKLOG));

    // The pods of the ordinals 1 and 2 go with messages in their logs, and their claims wait for the sink.
    scale(&namespace, 1);
    let left = [1, 2].map(|ordinal| senders.answered_by(pods[ordinal]));
    assert!(left.iter().all(|left| sink.lacks(left).len() >= BACKLOG));
    let drainers = [1, 2].map(|ordinal| {
        namespace.until_gone::<Pod>(&format!("edge-{ordinal}"));
        drainer(&namespace, ordinal)
    });

    // The fleet gets one of them back while both Jobs run, which cannot end before the sink is there.
    let claims = [1, 2].map(|ordinal| kept_claim(&namespace, ordinal));
    scale(&namespace, 2);
    namespace.until_gone::<Job>("edge-drain-1");
    assert_eq!(drainer(&namespace, 2), drainers[1], "the other Job continues");
    assert_eq!([1, 2].map(|ordinal| kept_claim(&namespace, ordinal)), claims);
    sink.comes();
    until_within(SCALED, "the claim without a pod goes", || claim(&namespace, 2).is_none());
    assert!(sink.lacks(&left[1]).is_empty(), "the claim went after its messages");
    until("the pod that came back sends what its claim has", || sink.lacks(&left[0]).is_empty());
    assert_eq!(kept_claim(&namespace, 1), claims[0]);

    scale(&namespace, 3);
    let so_far = senders.answered().len();
    until("the load continues", || senders.answered().len() >= so_far + BACKLOG);
    let answered = senders.stop();
    until("every message that was answered has arrived", || sink.lacks(&answered).is_empty());
    eprintln!("{} messages were answered, and all arrived", answered.len());
}

#[test]
fn a_sidecar_says_how_it_keeps_messages_and_has_them_after_its_proxy_was_killed() {
    let Some(node) = shared::node_with_a_host() else { return };
    let namespace = restricted("durable-sidecar");
    let mut sink = Sink::at(node, "198.51.100.31:2514");
    namespace.apply(&forward("{sidecar: {selector: {matchLabels: {app: shop}}}}", sink.at));
    namespace.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: durable-app, labels: {app: shop, portlane.dev/inject: enabled}}, spec: \
         {terminationGracePeriodSeconds: 0, securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}, \
         containers: [{name: app, image: 'localhost/portlane/echo:0.1.0', args: [pause], securityContext: \
         {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]}}",
    );
    namespace.kubectl(&["wait", "--for=condition=Ready", "pod/durable-app", "--timeout=180s"]).ok();
    wait_for(&namespace, "portforward/logs");
    let status = |path: &str| namespace.kubectl(&["get", "pf", "logs", &format!("--output=jsonpath={path}")]).stdout;
    until("status says what the log survives", || {
        status("{.status.conditions[?(@.type==\"MessagesKept\")].reason}") == "InPod"
    });

    let ip = namespace.kubectl(&["get", "pod", "durable-app", "--output=jsonpath={.status.podIP}:80"]).ok();
    let pod: SocketAddr = ip.parse().expect("an address");
    let senders = Senders::start(node, &[pod], pod);
    until("messages are answered", || senders.answered().len() >= BACKLOG);
    let answered = senders.stop();
    let delivery = || status("{.status.listeners[?(@.name==\"relp\")].delivery}");
    until("status says that messages wait", || ["Behind", "Stalled"].contains(&delivery().as_str()));
    kill_proxy(node, "durable-app");
    sink.comes();
    until("every message that was answered arrives", || sink.lacks(&answered).is_empty());
    until("status says that they leave as they come", || delivery() == "Flowing");
}
