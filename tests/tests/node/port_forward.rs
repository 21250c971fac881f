//! `kubectl portlane forward` on a real node: pods are deleted under load, and a user without the right gets a message.

use std::{
    collections::BTreeSet,
    env,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use harness::{Namespace, assert_reset, binary, connect, greeting, round_trip, until};

use crate::shared;

/// Pods that are deleted, one after the other.
const DELETIONS: usize = 4;
/// Number of deletions of a long run, as a variable of the environment.
const LONG: &str = "PORTLANE_DELETIONS";
/// Time from one deletion of a long run to the next.
const EVERY: Duration = Duration::from_secs(5);
/// Clients of a long run.
const CLIENTS: usize = 8;
/// Longest wait of a new connection, which is what the page of the command promises.
const WAIT: Duration = Duration::from_secs(2);

/// Two pods that greet with their names, behind a Service with a named target port.
pub(crate) const ECHO: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: echo}
spec:
  replicas: 2
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: echo
        image: localhost/portlane/echo:0.1.0
        imagePullPolicy: Never
        env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        args: [serve, --address, 0.0.0.0, --port, '8000', --name, '$(POD): ']
        ports: [{name: echo, containerPort: 8000}]
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  selector: {app: echo}
  ports:
  - {name: tcp, port: 80, targetPort: echo}
";

/// A running forwarder. Killed on drop.
pub(crate) struct Forwarder {
    child: Child,
    pub(crate) port: u16,
}

impl Forwarder {
    /// Starts the plugin, and reads the port that it listens on.
    pub(crate) fn start(kubeconfig: &Path, namespace: &Namespace<'_>, words: &[&str]) -> Self {
        let mut command = Command::new(binary("kubectl-portlane"));
        command.env("KUBECONFIG", kubeconfig).args(["forward", "-n", namespace.name()]).args(words);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the plugin starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let address = line.split([',', ' ']).next().unwrap_or_default();
        let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
        let Some(port) = port else {
            let mut errors = String::new();
            let _ = child.stderr.take().expect("piped").read_to_string(&mut errors);
            panic!("no port in {line:?}: {errors}");
        };
        Self { child, port }
    }

    /// Ends the forwarder, and gives what it reported.
    fn stop(mut self) -> String {
        let _ = self.child.kill();
        let mut errors = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut errors).expect("text");
        errors
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A session through the forwarder, and the pod that serves it.
pub(crate) fn open(port: u16) -> io::Result<(std::net::TcpStream, String)> {
    let mut session = connect(port)?;
    let pod = greeting(&mut session)?.trim_end_matches(": ").to_owned();
    Ok((session, pod))
}

/// What a client saw that connects again and again.
#[derive(Default)]
struct Seen {
    connections: usize,
    broken: Vec<String>,
    longest: Duration,
    pods: BTreeSet<String>,
}

/// Clients that connect at the same time.
struct Clients {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    work: Vec<JoinHandle<()>>,
}

impl Clients {
    fn start(port: u16, clients: usize) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let work = (0..clients).map(|_| Self::connect(port, stop.clone(), seen.clone())).collect();
        Self { stop, seen, work }
    }

    /// Connects again and again until the end.
    fn connect(port: u16, stopped: Arc<AtomicBool>, noted: Arc<Mutex<Seen>>) -> JoinHandle<()> {
        thread::spawn(move || {
            while !stopped.load(Relaxed) {
                let started = Instant::now();
                let opened = open(port).and_then(|(mut session, pod)| round_trip(&mut session, b"x").map(|_| pod));
                let waited = started.elapsed();
                let mut seen = noted.lock().expect("no panic");
                seen.connections += 1;
                seen.longest = seen.longest.max(waited);
                match opened {
                    Ok(pod) => seen.pods.extend([pod]),
                    Err(error) => seen.broken.push(format!("after {waited:?}: {error}")),
                }
            }
        })
    }

    /// Whether a pod that is not in this set has served a connection.
    fn has_seen_another(&self, known: &BTreeSet<String>) -> bool {
        !self.seen.lock().expect("no panic").pods.is_subset(known)
    }

    fn stop(self) -> Seen {
        self.stop.store(true, Relaxed);
        for client in self.work {
            client.join().expect("a client does not panic");
        }
        std::mem::take(&mut *self.seen.lock().expect("no panic"))
    }
}

/// Names of the pods at present.
pub(crate) fn pods(namespace: &Namespace<'_>) -> BTreeSet<String> {
    let names = namespace.kubectl(&["get", "pods", "-l", "app=echo", "-o", "name"]).ok();
    names.lines().map(|name| name.trim_start_matches("pod/").to_owned()).collect()
}

/// Deletes pods one after the other, but never `spared`, while a client connects to a port of this machine again and
/// again. Connections go to the replacements, and only those that a pod has already accepted break. A long run
/// (`PORTLANE_DELETIONS`) has more clients, and deletes a pod every five seconds.
pub(crate) fn replace_pods(namespace: &Namespace<'_>, port: u16, spared: &str, deletions: usize) {
    let long = env::var(LONG).ok().map(|number| number.parse::<usize>().expect("PORTLANE_DELETIONS is a number"));
    let (deletions, every, clients) = long.map_or((deletions, Duration::ZERO, 1), |long| (long, EVERY, CLIENTS));
    let client = Clients::start(port, clients);
    let (mut known, mut deleted) = (pods(namespace), BTreeSet::from([spared.to_owned()]));
    let started = Instant::now();
    let mut due = started;
    for _ in 0..deletions {
        until("the next deletion is due", || Instant::now() >= due);
        due += every;
        let present = pods(namespace);
        let victim = present.difference(&deleted).next().expect("a pod beside the one that is spared").clone();
        known.extend(present.iter().cloned());
        namespace.kubectl(&["delete", "pod", &victim, "--wait=false"]).ok();
        deleted.insert(victim);
        until("the replacement of a deleted pod serves connections", || client.has_seen_another(&known));
        known.extend(client.seen.lock().expect("no panic").pods.iter().cloned());
    }
    let seen = client.stop();
    eprintln!(
        "{deletions} pods replaced in {:?}: {} connections of {clients} clients, the longest took {:?}, broken: {:?}",
        started.elapsed(),
        seen.connections,
        seen.longest,
        seen.broken
    );
    assert!(seen.connections > 10 * deletions, "there was no load");
    assert!(seen.longest <= WAIT, "a connection took {:?}", seen.longest);
    // A connection that a pod has already accepted ends with the pod.
    assert!(seen.broken.len() <= deletions * clients, "{:?}", seen.broken);
}

#[test]
fn a_service_is_reached_while_its_pods_are_replaced() {
    let namespace = shared::cluster().namespace("port-forward").for_pods();
    namespace.apply(ECHO);
    namespace.kubectl(&["wait", "--for=condition=Available", "deploy/echo", "--timeout=180s"]).ok();
    until("two pods exist", || pods(&namespace).len() == 2);
    let forwarder = Forwarder::start(namespace.cluster().kubeconfig(), &namespace, &["svc/echo", ":80"]);
    until("a pod answers", || open(forwarder.port).is_ok());
    // Balanced over both pods: the pod with fewer sessions is next.
    let (mut survivor, spared) = open(forwarder.port).expect("a session");
    until("both pods have a session", || open(forwarder.port).is_ok_and(|(_, pod)| pod != spared));

    replace_pods(&namespace, forwarder.port, &spared, DELETIONS);
    assert_eq!(round_trip(&mut survivor, b"still here").expect("the session of a living pod"), b"still here");

    // The session of a deleted pod ends.
    namespace.kubectl(&["delete", "pod", &spared, "--wait=false"]).ok();
    let ended = survivor.read(&mut [0; 1]);
    assert!(matches!(&ended, Ok(0)) || ended.as_ref().is_err_and(|error| !is_timeout(error)), "{ended:?}");
    a_missing_right_is_named(&namespace);
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// `view` may read everything that the forwarder reads, and may not forward.
fn a_missing_right_is_named(namespace: &Namespace<'_>) {
    namespace.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: viewer}}");
    let account = format!("--serviceaccount={}:viewer", namespace.name());
    namespace.kubectl(&["create", "rolebinding", "viewer", "--clusterrole=view", &account]).ok();
    let folder = tempfile::tempdir().expect("a folder");
    let path = namespace.kubeconfig_of("viewer", folder.path());
    // The authorizer follows the binding a moment later.
    let can_read = ["auth", "can-i", "watch", "services", "--as"];
    let user = format!("system:serviceaccount:{}:viewer", namespace.name());
    until("the binding counts", || namespace.kubectl(&[&can_read[..], &[user.as_str()]].concat()).success);
    let forwarder = Forwarder::start(&path, namespace, &["deploy/echo", ":echo"]);
    assert_reset(connect(forwarder.port), b"x");
    let errors = forwarder.stop();
    assert!(errors.contains("ask for `get` and `create` on `pods/portforward`"), "{errors}");
}
