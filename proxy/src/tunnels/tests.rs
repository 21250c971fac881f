//! Workers' connections to targets behind a real agent, on loopback.

mod flows;
mod instances;
mod peers;
mod sidecars;

use std::net::Shutdown;

use proxy_api::Enrolment;
use socket2::SockRef;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::TcpStream,
    time::timeout,
};
use tunnel::{
    agent,
    enrol::{Way, enrol},
    identity::{agent::AgentFolder, tls::agent_config},
    local::system_clock,
    secure::AgentTls,
};
use tunnel_core::{
    hello::Instance,
    identity::{AgentIdentity, AgentName},
};

use self::peers::told;
use super::*;
use crate::{
    core::backends::address::{Address as To, AgentAddress},
    fixtures,
    settings::Settings as ProxySettings,
    signing::{News, Room, desk},
    tcp::{dial::dial, direction::End},
};

/// Longest time for a test.
const PATIENCE: Duration = Duration::from_secs(30);
const UID: &str = "u-1";
const CLIENT: &str = "192.0.2.7:4711";
const LOOPBACK: &str = "127.0.0.0/8:1-65535";

/// The tunnels of a proxy, and an agent with its files.
struct Bed {
    agents: Agents,
    process: Process,
    configured: Option<watch::Sender<Arc<ForTunnels>>>,
    news: Arc<AgentNews>,
    connected: Instances,
    address: SocketAddr,
    thread: thread::JoinHandle<()>,
    folder: TempDir,
    home: TempDir,
}

#[allow(clippy::expect_used, reason = "a test helper")]
impl Bed {
    /// A proxy with an agent that may enrol once, and whose targets are all of IPv4 loopback.
    fn start() -> Self {
        Self::start_as(None, desk().0)
    }

    /// The same; with an id, as an endpoint of a cluster.
    fn start_as(endpoint: Option<EndpointId>, to_operator: ToOperator) -> Self {
        let process = process();
        let folder = tempfile::tempdir().expect("a folder");
        let port = bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        let address = port.local_addr().expect("an address");
        let settings = Settings {
            address,
            advertise: Vec::new(),
            folder: folder.path().to_owned(),
            endpoint,
            max_agents: MAX_AGENTS,
            sidecar_port: address.port(),
        };
        let (configured, configurations) = watch::channel(Arc::default());
        let news = Arc::new(AgentNews::default());
        let started = start(&settings, port, &process, configurations, news.clone(), to_operator);
        let (agents, thread) = started.expect("a thread");
        configured.send_replace(told(false, &[]));
        let home = tempfile::tempdir().expect("a folder");
        let (configured, connected) = (Some(configured), Instances::default());
        Self { agents, process, configured, news, connected, address, thread, folder, home }
    }

    /// Enrols the agent, and runs it until the sender is dropped.
    async fn agent(&mut self) -> watch::Sender<bool> {
        let path = self.folder.path().join("join/infra.home");
        until(|| path.exists()).await;
        let join = std::fs::read_to_string(&path).expect("a join string");
        let folder = AgentFolder::open(&self.home.path().join("agent")).expect("made");
        let way = Way { proxy: None, within: Duration::from_secs(10), clock: system_clock() };
        let enrolled = enrol(&join, &folder, &way).await.expect("a certificate");
        let key = folder.key().expect("a key");
        let tls = AgentTls::new(agent_config(&key, &enrolled, system_clock()).expect("usable"));
        let join = tunnel_core::join::JoinString::parse(&join).expect("a join string");
        let settings = agent::Settings {
            addresses: join.addresses().to_vec(),
            proxy: None,
            instance: Instance::new("pi4").expect("an instance"),
            program: "0.9.0".to_owned(),
            allow: AllowList::parse(Side::Dialler, &[LOOPBACK, "udp/127.0.0.0/8:1024-65535"]).expect("a list"),
            limits: Limits::default(),
            max_endpoints: 4,
            connect_within: Duration::from_secs(3),
            drain_within: Duration::from_secs(10),
            // Pauses of a few milliseconds.
            chance: || 0.005,
            unacknowledged: |_| 0,
        };
        let (stop, stopped) = watch::channel(false);
        spawn_local(agent::run(settings, tls, Boot([2; 16]), stopped));
        self.until_connected(true).await;
        stop
    }

    /// Waits until an instance is connected, or none is.
    async fn until_connected(&mut self, is_any: bool) {
        until_connected(&self.news, &mut self.connected, is_any).await;
    }

    /// Connects as a worker does, and the target accepts.
    async fn connection(&self, header: &[u8]) -> (End, TcpStream) {
        let target = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let to = to(target.local_addr().expect("an address").port(), "pi4");
        let (dialled, accepted) = tokio::join!(self.dial(&to, header), target.accept());
        (dialled.expect("a connection"), accepted.expect("a connection").0)
    }

    async fn dial(&self, to: &To, header: &[u8]) -> io::Result<End> {
        dial(&self.agents, to, CLIENT.parse().expect("an address"), header).await
    }
}

async fn until_connected(news: &AgentNews, connected: &mut Instances, is_any: bool) {
    while connected.0.is_empty() == is_any {
        for (uid, instances) in news.next().await {
            connected.set(uid, instances);
        }
    }
}

fn process() -> Process {
    fixtures::process(&ProxySettings::default(), None)
}

pub(super) fn home_agent(suspended: bool) -> Agent {
    Agent {
        namespace: "infra".to_owned(),
        name: "home".to_owned(),
        rotation: 0,
        suspended,
        is_newer: false,
        max_instances: 2,
        targets: [LOOPBACK, "udp/127.0.0.0/8:1-65535"].map(str::to_owned).into(),
        enrolment: Some(Enrolment { redemptions: 1, expire_seconds: 3600 }),
        gateway: None,
    }
}

fn to(port: u16, instance: &str) -> To {
    let (uid, agent) = (UID.into(), "infra/home".into());
    let instance = instance.into();
    To::Agent(Arc::new(AgentAddress { uid, agent, instance, host: "127.0.0.1".into(), port }))
}

/// Runs a test on one thread, within a deadline.
#[allow(clippy::expect_used, reason = "a test helper")]
fn within(test: impl Future<Output = ()>) -> impl Future<Output = ()> {
    let test = Box::pin(test);
    async { LocalSet::new().run_until(timeout(PATIENCE, test)).await.expect("the test in time") }
}

/// Waits for a condition, within the deadline of the test.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        sleep(Duration::from_millis(2)).await;
    }
}

/// Reads to the end of data, and returns whether that is a reset.
#[allow(clippy::expect_used, reason = "a test helper")]
async fn read_out(end: &End) -> (Vec<u8>, bool) {
    let (mut all, mut bytes) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        end.stream.ready(Interest::READABLE).await.expect("a runtime");
        match end.stream.try_read(&mut bytes) {
            Ok(0) => return (all, end.is_reset()),
            Ok(read) => all.extend_from_slice(&bytes[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return (all, true),
        }
    }
}

#[allow(clippy::expect_used, reason = "a test helper")]
async fn write_all(end: &End, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        end.stream.ready(Interest::WRITABLE).await.expect("a runtime");
        match end.stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
}

fn pattern(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| seed.wrapping_add(u8::try_from(at % 251).unwrap_or_default())).collect()
}

#[tokio::test]
async fn bytes_are_equal_and_each_direction_ends_by_itself() {
    const BYTES: usize = 2_000_000;
    within(async {
        let mut bed = Bed::start();
        let _agent = bed.agent().await;
        let (end, mut target) = bed.connection(b"header ").await;
        let worker = async {
            write_all(&end, &pattern(1, BYTES)).await;
            SockRef::from(&end.stream).shutdown(Shutdown::Write).expect("connected");
            read_out(&end).await
        };
        let far = async {
            let mut asked = Vec::new();
            target.read_to_end(&mut asked).await.expect("the end of data");
            target.write_all(&pattern(2, BYTES)).await.expect("connected");
            target.shutdown().await.expect("connected");
            asked
        };
        let ((answer, is_reset), asked) = tokio::join!(worker, far);
        assert!(asked == [b"header ".as_slice(), &pattern(1, BYTES)].concat(), "the question");
        assert!(answer == pattern(2, BYTES) && !is_reset, "the answer");
    })
    .await;
}

#[tokio::test]
async fn a_reset_of_the_target_is_a_reset_for_the_worker_also_if_it_does_not_read() {
    within(async {
        let mut bed = Bed::start();
        let _agent = bed.agent().await;
        for has_finished in [false, true] {
            let (end, mut target) = bed.connection(b"").await;
            target.write_all(b"last").await.expect("connected");
            let mut last = [0; 4];
            end.stream.peek(&mut last).await.expect("bytes");
            if has_finished {
                target.shutdown().await.expect("connected");
                assert_eq!(read_out(&end).await, (b"last".to_vec(), false));
            }
            SockRef::from(&target).set_linger(Some(Duration::ZERO)).expect("an option");
            drop(target);
            end.gone().await;
            let rest = if has_finished { Vec::new() } else { b"last".to_vec() };
            assert_eq!(read_out(&end).await, (rest, true));
        }
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_resets_or_closes_does_so_for_the_target() {
    within(async {
        let mut bed = Bed::start();
        let _agent = bed.agent().await;
        for is_clean in [false, true] {
            let (end, mut target) = bed.connection(b"last").await;
            target.read_exact(&mut [0; 4]).await.expect("bytes");
            end.clean.set(is_clean);
            drop(end);
            let read = target.read(&mut [0]).await.map_err(|error| error.kind());
            assert_eq!(read, if is_clean { Ok(0) } else { Err(io::ErrorKind::ConnectionReset) });
        }
        // Half-closed first: then nothing reads the end of the worker.
        let (end, mut target) = bed.connection(b"last").await;
        SockRef::from(&end.stream).shutdown(Shutdown::Write).expect("connected");
        let mut all = Vec::new();
        target.read_to_end(&mut all).await.expect("the end of data");
        drop(end);
        let gone = target.ready(Interest::ERROR).await.expect("a runtime");
        assert!(all == b"last" && gone.is_error());
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_connected_fails_by_its_kind_and_a_connection_holds_one_more_descriptor() {
    within(async {
        let mut bed = Bed::start();
        let stop = bed.agent().await;
        let closed = TcpListener::bind("127.0.0.1:0").await.and_then(|it| it.local_addr()).expect("a port").port();
        let far = To::Agent(Arc::new(AgentAddress {
            host: "192.0.2.1".into(),
            ..(**to(1, "pi4").agent().expect("an agent")).clone()
        }));
        for (to, kind) in [
            (to(closed, "pi4"), io::ErrorKind::ConnectionRefused),
            (to(1, "other"), io::ErrorKind::NotConnected),
            (far, io::ErrorKind::PermissionDenied),
        ] {
            assert_eq!(bed.dial(&to, b"").await.expect_err("no connection").kind(), kind, "{to}");
        }
        let files = bed.process.files.clone();
        // The connection of the agent.
        until(|| files.usage().0 == 1).await;
        let (end, target) = bed.connection(b"").await;
        until(|| files.usage().0 == 2).await;
        drop((end, target));
        until(|| files.usage().0 == 1).await;
        drop(stop);
        bed.until_connected(false).await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_has_not_shown_whose_it_is_holds_a_descriptor_too() {
    within(async {
        let bed = Bed::start();
        let files = bed.process.files.clone();
        let [one, other] = [TcpStream::connect(bed.address).await, TcpStream::connect(bed.address).await];
        until(|| files.usage().0 == 2).await;
        drop(one.expect("a connection"));
        until(|| files.usage().0 == 1).await;
        drop(other.expect("a connection"));
        until(|| files.usage().0 == 0).await;
    })
    .await;
}

#[tokio::test]
async fn a_join_string_goes_when_it_was_used_and_a_suspended_agent_is_disconnected() {
    within(async {
        let mut bed = Bed::start();
        let _agent = bed.agent().await;
        let path = bed.folder.path().join("join/infra.home");
        until(|| !path.exists()).await;
        bed.configured.as_ref().expect("a sender").send_replace(told(true, &[]));
        bed.until_connected(false).await;
        until(|| bed.agents.seen().closed.contains_key("suspended")).await;
        assert!(!path.exists(), "nobody may enrol any more");
    })
    .await;
}

#[tokio::test]
async fn the_thread_ends_with_the_last_who_configures_it() {
    within(async {
        let mut bed = Bed::start();
        let _agent = bed.agent().await;
        let (end, mut target) = bed.connection(b"last").await;
        end.clean.set(true);
        drop(end);
        drop(bed.configured.take());
        until(|| bed.thread.is_finished()).await;
        let mut all = Vec::new();
        // A reset may follow, because the target had not finished.
        let _ = target.read_to_end(&mut all).await;
        assert_eq!(all, b"last", "bytes on their way have arrived");
        assert!(bed.process.lives.died().is_empty());
        assert!(bed.dial(&to(1, "pi4"), b"").await.is_err());
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_of_a_cluster_asks_the_operator_for_its_certificate_and_has_no_root() {
    within(async {
        let (to_operator, mut desk) = desk();
        let bed = Bed::start_as(Some(EndpointId::new("0f3a").expect("an id")), to_operator);
        let News::Asked(asked) = desk.next(Room::All).await else { panic!("no agent has come") };
        assert_eq!(asked.applicant, proxy_api::Applicant::Endpoint);
        assert!(!bed.folder.path().join("root.pem").exists());
    })
    .await;
}

#[allow(clippy::expect_used, reason = "a test helper")]
pub(super) fn view(uid: &str, instance: &str, attached: bool, leaving: bool) -> View {
    View {
        identity: AgentIdentity::new(AgentName::new("infra", "home").expect("a name"), uid, 0).expect("an identity"),
        instance: instance.to_owned(),
        program: "0.9.0".to_owned(),
        age: Duration::ZERO,
        attached,
        leaving,
        streams: 0,
        round_trip: Duration::ZERO,
    }
}
