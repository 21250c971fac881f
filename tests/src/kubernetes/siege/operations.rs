//! What keeps working under attack: each operation either succeeds in a measured time, or is refused.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use crds::PortForward;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use super::{
    DATAGRAMS, HEADER, HEALTH_OF_OPERATOR, HEALTH_OF_PROXY, MESSAGES, PLAIN, SERVER_NAME, SIDECAR, Siege, WEBHOOK,
    address, forward,
};
use crate::{
    Speaks, attack, block_on, http_get_on,
    kubernetes::{OPERATOR, namespace::diagnosis, scene::condition},
};

/// Longest time of an operation. One that takes longer counts as refused.
const LONGEST: Duration = Duration::from_secs(180);
/// Pause between two looks at a condition: the resolution of what is measured.
const LOOK: Duration = Duration::from_millis(20);
/// How long a client waits for an answer before it sends its datagram again: T1 of SIP (RFC 3261, 17.1.1.1).
const AGAIN: Duration = Duration::from_millis(500);
/// Times that a datagram is sent, each from another socket, before it counts as refused.
const TRIES: usize = 16;
/// What a datagram says, and the end of its answer.
const WORD: &[u8] = b"hello";
/// Times that a client of RELP connects before it counts as refused, and its pause between two of them.
const CONNECTS: usize = 8;
const RECONNECT: Duration = Duration::from_millis(100);
/// What a client of RELP says, and what it hears once its message is on the disk.
const RELP: &[u8] = b"1 open 30 relp_version=0\ncommands=syslog\n2 syslog 5 hello\n";
const KEPT: &[u8] = b"\n2 rsp 6 200 OK\n";

/// Something that must not be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// A session through the gateway.
    Session,
    /// A session through the listener that requires a PROXY header.
    Header,
    /// A session through the listener that is chosen by the server name.
    ServerName,
    /// A datagram through the gateway, and its answer.
    Datagram,
    /// A message for a durable listener, until the gateway has it on its disk.
    Message,
    /// A dry run of the creation of a pod that gets a sidecar, by the API server's call of the webhook.
    Admission,
    /// Requests of `/livez` and `/readyz` as people send them, at every replica and every proxy.
    Probe,
    /// A request for a custom metric.
    Metric,
    /// A pod with a sidecar, from its creation to the first session through the sidecar.
    Sidecar,
    /// `kubectl scale`, from two to three ready proxies. After that the gateway is scaled back.
    Scale,
    /// A change of the leader, from the deletion of its pod to a change of a forward under the next one.
    Leader,
    /// The renewal of the serving certificate of a replica, from one to the next.
    Rotation,
}

impl Operation {
    /// Those that take milliseconds.
    pub const QUICK: [Self; 6] =
        [Self::Session, Self::Header, Self::ServerName, Self::Datagram, Self::Message, Self::Admission];
    /// Sessions through the gateway.
    const SESSIONS: [Self; 3] = [Self::Session, Self::Header, Self::ServerName];
    /// Those that take seconds, or change something.
    pub const LONG: [Self; 6] = [Self::Probe, Self::Metric, Self::Sidecar, Self::Scale, Self::Leader, Self::Rotation];

    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Session => "a new session",
            Self::Header => "a new session with a PROXY header",
            Self::ServerName => "a new session by server name",
            Self::Datagram => "an answer to a datagram",
            Self::Message => "an answer to a message over RELP",
            Self::Admission => "admission of a pod with a sidecar (dry run)",
            Self::Probe => "probes of all replicas and proxies, the slowest",
            Self::Metric => "a custom metric, by kubectl",
            Self::Sidecar => "a new pod, until its sidecar serves",
            Self::Scale => "kubectl scale, until the new proxy is ready",
            Self::Leader => "deletion of the leader, until a change is programmed",
            Self::Rotation => "from one serving certificate to the next",
        }
    }
}

/// An operation that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// How long it took, all attempts included.
    pub took: Duration,
    /// Attempts of its client before the one that succeeded.
    pub retries: usize,
}

impl Siege<'_> {
    /// Does one operation and measures it.
    ///
    /// # Errors
    /// What was refused, and why.
    pub fn run(&self, operation: Operation) -> Result<Done, String> {
        let at_once = |took: Duration| Done { took, retries: 0 };
        let done = match operation {
            Operation::Session => self.session(PLAIN, &[]).map(at_once),
            Operation::Header => self.session(HEADER, &attack::opening(Speaks::Header)).map(at_once),
            Operation::ServerName => self.session(SERVER_NAME, &attack::opening(Speaks::ServerName)).map(at_once),
            Operation::Datagram => self.datagram(),
            Operation::Message => self.message(),
            Operation::Admission => self.admission().map(at_once),
            Operation::Probe => self.probes().map(at_once),
            Operation::Metric => self.metric(),
            Operation::Sidecar => self.sidecar().map(at_once),
            Operation::Scale => self.scale().map(at_once),
            Operation::Leader => self.change_of_leader().map(at_once),
            Operation::Rotation => self.rotation().map(at_once),
        };
        done.map_err(|why| format!("{}: {why}, {:.1?} after the start", operation.name(), self.elapsed()))
    }

    /// As [`Self::run`]. The proxies close a session by a reset, whatever the reason: for a session that was refused, their
    /// records say which.
    pub(super) fn run_explained(&self, operation: Operation) -> Result<Done, String> {
        let done = self.run(operation);
        if !Operation::SESSIONS.contains(&operation) {
            return done;
        }
        done.map_err(|why| format!("{why}; cut by the proxies in the last minute: [{}]", self.cut()))
    }

    fn session(&self, port: u16, opening: &[u8]) -> Result<Duration, String> {
        let started = Instant::now();
        self.greeted(SocketAddr::new(self.service, port), opening).map_err(|error| error.to_string())?;
        Ok(started.elapsed())
    }

    /// Datagrams may be lost, so the first one that is answered counts.
    fn datagram(&self) -> Result<Done, String> {
        let (started, to) = (Instant::now(), SocketAddr::new(self.service, DATAGRAMS));
        let answered = || {
            let socket = self.node.udp(to)?;
            socket.set_read_timeout(Some(AGAIN))?;
            socket.send(WORD)?;
            let mut answer = [0; 64];
            let length = socket.recv(&mut answer)?;
            Ok::<_, io::Error>(answer[..length].ends_with(WORD))
        };
        let mut why = String::new();
        for retries in 0..TRIES {
            match answered() {
                Ok(true) => return Ok(Done { took: started.elapsed(), retries }),
                Ok(false) => "another answer".clone_into(&mut why),
                Err(error) => why = error.to_string(),
            }
        }
        Err(format!("{TRIES} datagrams without an answer: {why}"))
    }

    /// A client of RELP connects again when its connection is closed.
    fn message(&self) -> Result<Done, String> {
        let (started, to) = (Instant::now(), SocketAddr::new(self.service, MESSAGES));
        let is_kept = || {
            let mut client = self.node.connect(to)?;
            client.write_all(RELP)?;
            let (mut answers, mut buffer) = (Vec::new(), [0; 512]);
            while !answers.ends_with(KEPT) {
                match client.read(&mut buffer)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => answers.extend_from_slice(&buffer[..count]),
                }
            }
            Ok::<_, io::Error>(())
        };
        let mut why = String::new();
        for retries in 0..CONNECTS {
            match is_kept() {
                Ok(()) => return Ok(Done { took: started.elapsed(), retries }),
                Err(error) => why = error.to_string(),
            }
            thread::park_timeout(RECONNECT);
        }
        Err(format!("{CONNECTS} connections without an answer: {why}"))
    }

    fn admission(&self) -> Result<Duration, String> {
        let started = Instant::now();
        self.create("dry-run", true)?;
        Ok(started.elapsed())
    }

    /// Creates a pod, which must get its proxy.
    fn create(&self, name: &str, dry_run: bool) -> Result<(), String> {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "shop", "portlane.dev/inject": "enabled"}},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "app",
                    "image": "localhost/portlane/echo:0.1.0",
                    "args": ["serve", "--address", "127.0.0.1", "--port", "8000", "--name", "app: "],
                }],
            },
        });
        let pod: Pod = serde_json::from_value(pod).expect("a Pod");
        let (pods, parameters) = (self.namespace.api::<Pod>(), PostParams { dry_run, ..PostParams::default() });
        let created = block_on(async { pods.create(&parameters, &pod).await }).map_err(|error| error.to_string())?;
        let first = created.spec.and_then(|spec| spec.init_containers).unwrap_or_default();
        let carries = first.iter().any(|container| container.name == "portlane-proxy");
        if carries { Ok(()) } else { Err(format!("pod {name} was created without a proxy")) }
    }

    fn probes(&self) -> Result<Duration, String> {
        let mut slowest = Duration::ZERO;
        let of = |pods: Vec<Pod>, port: u16| {
            let addresses: Vec<_> = pods.iter().filter_map(address).collect();
            addresses.into_iter().map(move |ip| SocketAddr::new(ip, port))
        };
        for at in of(self.operators(), HEALTH_OF_OPERATOR).chain(of(self.proxies(), HEALTH_OF_PROXY)) {
            for path in ["/livez", "/readyz"] {
                let started = Instant::now();
                let answer = self.node.connect(at).and_then(|stream| http_get_on(stream, path));
                slowest = slowest.max(started.elapsed());
                match answer {
                    Ok((200, _)) => {}
                    Ok((status, body)) => return Err(format!("{at}{path}: {status} {body}")),
                    Err(error) => return Err(format!("{at}{path}: {error}")),
                }
            }
        }
        Ok(slowest)
    }

    fn metric(&self) -> Result<Done, String> {
        let (group, namespace) = ("/apis/custom.metrics.k8s.io/v1beta2", self.namespace.name());
        let path = format!("{group}/namespaces/{namespace}/pods/*/portlane_connections");
        let started = Instant::now();
        // A leader that does not know all loads yet says so, and an HPA asks again.
        let (mut last, mut requests) = (String::new(), 0_usize);
        let answered = soon("the metric is answered", || {
            requests += 1;
            let answer = self.kubectl(&["get", "--raw", &path]);
            let is_later = answer.as_ref().is_err_and(|why| why.contains("ServiceUnavailable"));
            last = answer.err().unwrap_or_default();
            !is_later
        });
        answered.map_err(|why| format!("{why}: {last}"))?;
        let done = Done { took: started.elapsed(), retries: requests.saturating_sub(1) };
        if last.is_empty() { Ok(done) } else { Err(last) }
    }

    fn sidecar(&self) -> Result<Duration, String> {
        let name = self.next_pod();
        let started = Instant::now();
        self.create(&name, false)?;
        let served = soon("the sidecar serves", || {
            let ip = self.namespace.get::<Pod>(&name).as_ref().and_then(address);
            ip.is_some_and(|ip| self.greeted(SocketAddr::new(ip, SIDECAR), &[]).is_ok())
        });
        let served = served.map_err(|why| format!("{why}\n{}", diagnosis::of(&self.namespace, "pod", &name)));
        let took = started.elapsed();
        let (pods, at_once) = (self.namespace.api::<Pod>(), DeleteParams::default().grace_period(0));
        let deleted = block_on(async { pods.delete(&name, &at_once).await });
        served?;
        deleted.map(|_| took).map_err(|error| error.to_string())
    }

    fn scale(&self) -> Result<Duration, String> {
        let started = Instant::now();
        self.kubectl(&["scale", "forwardgateway/edge", "--replicas=3"])?;
        soon("three proxies are ready", || self.ready_proxies() == Some(3))?;
        let took = started.elapsed();
        self.kubectl(&["scale", "forwardgateway/edge", "--replicas=2"])?;
        soon("two proxies are left", || self.ready_proxies() == Some(2) && self.proxies().len() == 2)?;
        Ok(took)
    }

    fn ready_proxies(&self) -> Option<i32> {
        self.namespace.get::<Deployment>("edge")?.status?.ready_replicas
    }

    fn change_of_leader(&self) -> Result<Duration, String> {
        let leader = self.leader().ok_or("no replica leads")?;
        let started = Instant::now();
        self.kubectl(&["delete", "pod", &leader, "-n", OPERATOR, "--wait=false"])?;
        soon("another replica leads", || self.leader().is_some_and(|now| now != leader))?;
        self.namespace.write::<PortForward>(&forward("other"));
        soon("a change is programmed", || self.is_ready())?;
        let took = started.elapsed();
        let greeting = self.greeted(SocketAddr::new(self.service, PLAIN), &[]).map_err(|error| error.to_string())?;
        if greeting != "other: " {
            return Err(format!("a new session goes to the old backend: {greeting}"));
        }
        self.namespace.write::<PortForward>(&forward("web"));
        soon("a change back is programmed", || self.is_ready())?;
        self.kubectl(&["rollout", "status", "deploy/portlane-operator", "-n", OPERATOR, "--timeout=180s"])?;
        Ok(took)
    }

    /// Whether the newest generation of the forward is ready.
    fn is_ready(&self) -> bool {
        let Some(web) = self.namespace.get::<PortForward>("web") else { return false };
        let observed = web.status.as_ref().and_then(|status| status.observed_generation);
        observed == web.metadata.generation && condition(&web, "Ready").0 == "True"
    }

    /// The time from one renewal to the next, which does not depend on when this begins.
    fn rotation(&self) -> Result<Duration, String> {
        let ip = self.operators().iter().find_map(address).ok_or("the operator has no pod")?;
        let leaf = || self.node.connect(SocketAddr::new(ip, WEBHOOK)).and_then(attack::leaf);
        let mut shown = leaf().map_err(|error| error.to_string())?;
        let mut renewed = || {
            soon("the serving certificate is renewed", || {
                let Ok(now) = leaf() else { return false };
                let is_another = now != shown;
                shown = now;
                is_another
            })
            .map(|()| Instant::now())
        };
        let first = renewed()?;
        Ok(renewed()?.duration_since(first))
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<(), String> {
        // A later --namespace overrides the one of the test.
        let output = self.namespace.kubectl(arguments);
        if output.success { Ok(()) } else { Err(format!("kubectl {}: {}", arguments.join(" "), output.stderr)) }
    }
}

/// Waits until a condition holds, but no longer than [`LONGEST`].
fn soon(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), String> {
    let deadline = Instant::now() + LONGEST;
    while !holds() {
        if Instant::now() > deadline {
            return Err(format!("did not happen within {LONGEST:?}: {what}"));
        }
        thread::park_timeout(LOOK);
    }
    Ok(())
}
