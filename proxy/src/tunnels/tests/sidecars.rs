//! Sidecars, which agents reach through a proxy of their gateway.

use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64;
use proxy_api::{Applicant, Issued, SignOutcome};
use tokio::task::yield_now;
use tunnel::identity::authority::{Authority, Request};

use super::*;
use crate::{signing::Desk, tunnels::sidecar::Started};

/// The uid of the gateway.
const GATEWAY: &str = "uid-edge";
/// The id of the sidecar as an endpoint.
const SIDECAR: &str = "5c1d";
/// The address of the sidecar's pod. It listens on the port that the test of a gateway uses at another address.
const POD: [u8; 4] = [127, 0, 0, 5];

/// A sidecar beside the proxy of a gateway.
struct Pod {
    agents: Agents,
    process: Process,
    address: SocketAddr,
    configured: Option<watch::Sender<Arc<ForTunnels>>>,
    news: Arc<AgentNews>,
    connected: Instances,
    desk: Desk,
    started: Started,
    _folder: TempDir,
}

#[allow(clippy::expect_used, clippy::panic, reason = "a test helper")]
impl Pod {
    fn start(port: u16) -> Self {
        let (process, folder) = (process(), tempfile::tempdir().expect("a folder"));
        let address = SocketAddr::from((POD, port));
        let settings = sidecar::Settings { address, folder: folder.path().join("tunnels") };
        let (configured, configurations) = watch::channel(Arc::default());
        let (news, started) = (Arc::new(AgentNews::default()), Started::default());
        let (to_operator, desk) = desk();
        let (agents, starts) =
            sidecar::wait(&settings, &process, configurations, news.clone(), to_operator, started.clone());
        tokio::spawn(starts);
        let (configured, connected, desk) = (Some(configured), Instances::default(), desk.of_sidecar());
        Self { agents, process, address, configured, news, connected, desk, started, _folder: folder }
    }

    /// Sets the agents of the sidecar.
    fn configure(&self, agents: BTreeMap<String, Agent>) {
        let told = ForTunnels { agents, ..ForTunnels::default() };
        self.configured.as_ref().expect("a sender").send_replace(Arc::new(told));
    }

    /// Whether the thread has started, and whether it has ended.
    fn thread(&self) -> Option<bool> {
        self.started.lock().expect("not poisoned").as_ref().map(thread::JoinHandle::is_finished)
    }

    /// The operator signs the certificate that the sidecar asks for.
    async fn sign(&mut self, root: &Authority) {
        loop {
            let News::Asked(asked) = self.desk.next(Room::All).await else { panic!("no agent is connected yet") };
            assert_eq!(asked.applicant, Applicant::Sidecar { gateway: GATEWAY.to_owned() });
            let request = BASE64.decode(asked.request.as_bytes()).expect("base64");
            let request = Request::parse(&request).expect("a request");
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
            let id = EndpointId::new(SIDECAR).expect("an id");
            let certificate = root.sign_sidecar(&request, &id, Duration::from_secs(3600), now).expect("signed");
            let issued = Issued { certificate: BASE64.encode(&certificate), root: BASE64.encode(root.root()) };
            // A sidecar that has waited for too long asks again.
            if asked.reply.send(SignOutcome::Issued(issued)).is_ok() {
                return;
            }
        }
    }

    async fn until_connected(&mut self, is_any: bool) {
        until_connected(&self.news, &mut self.connected, is_any).await;
    }
}

/// The agent in the configuration of a sidecar.
fn met() -> BTreeMap<String, Agent> {
    let home = Agent { gateway: Some(GATEWAY.to_owned()), enrolment: None, ..home_agent(false) };
    BTreeMap::from([(UID.to_owned(), home)])
}

/// What the gateway receives once the agent uses the sidecar.
fn named() -> Arc<ForTunnels> {
    let sidecar = Sidecar { address: POD.into(), agents: BTreeSet::from([UID.to_owned()]) };
    let sidecars = BTreeMap::from([(SIDECAR.to_owned(), sidecar)]);
    Arc::new(ForTunnels { sidecars, ..(*told(false, &[])).clone() })
}

#[tokio::test]
async fn a_sidecar_reaches_an_agent_through_a_proxy_of_its_gateway() {
    within(async {
        let mut bed = Bed::start();
        let _agent = bed.agent().await;
        let root = std::fs::read(bed.folder.path().join("root.pem")).expect("a root");
        let root = Authority::parse(&root).expect("a root");
        let mut pod = Pod::start(bed.address.port());
        pod.configure(met());
        pod.sign(&root).await;
        bed.configured.as_ref().expect("a sender").send_replace(named());
        pod.until_connected(true).await;
        let target = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let to = to(target.local_addr().expect("an address").port(), "pi4");
        let client = CLIENT.parse().expect("an address");
        let (end, accepted) = tokio::join!(dial(&pod.agents, &to, client, b"ask"), target.accept());
        let (end, (mut accepted, _)) = (end.expect("a connection"), accepted.expect("a connection"));
        accepted.read_exact(&mut [0; 3]).await.expect("the question");
        accepted.write_all(b"answer").await.expect("connected");
        accepted.shutdown().await.expect("connected");
        assert_eq!(read_out(&end).await, (b"answer".to_vec(), false));
        until(|| bed.agents.seen().handed == 1 && pod.agents.seen().agents == 1).await;
        let News::Connected(report) = pod.desk.next(Room::All).await else { panic!("the operator hears of the agent") };
        assert_eq!((report.agents.len(), report.agents.get(UID).map(Vec::len)), (1, Some(1)));
        drop((end, accepted));
        // No listener of the pod reaches the agent any more.
        pod.configure(BTreeMap::new());
        pod.until_connected(false).await;
        while TcpStream::connect(pod.address).await.is_ok() {
            yield_now().await;
        }
        let error = dial(&pod.agents, &to, client, b"").await.expect_err("no such agent");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        drop(pod.configured.take());
        until(|| pod.thread() == Some(true)).await;
        assert!(pod.process.lives.died().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_sidecar_without_agents_has_no_thread_and_asks_for_no_certificate() {
    within(async {
        let mut pod = Pod::start(1);
        pod.configure(BTreeMap::from([(UID.to_owned(), home_agent(false))]));
        let (has_news, pauses) = (pod.desk.next(Room::All), async {
            for _ in 0..9 {
                yield_now().await;
            }
        });
        select! {
            biased;
            _ = has_news => unreachable!("nobody asks"),
            () = pauses => {}
        }
        assert!(pod.thread().is_none());
        drop(pod.configured.take());
        let ended = pod.started.clone();
        until(|| Arc::strong_count(&ended) == 2).await;
        assert!(pod.thread().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_sidecar_without_a_certificate_closes_what_comes_and_takes_agents_once_it_has_one() {
    within(async {
        let mut bed = Bed::start();
        let _agent = bed.agent().await;
        let root = std::fs::read(bed.folder.path().join("root.pem")).expect("a root");
        let root = Authority::parse(&root).expect("a root");
        bed.configured.as_ref().expect("a sender").send_replace(named());
        let mut pod = Pod::start(bed.address.port());
        pod.configure(met());
        // The agent arrives before the certificate, and is closed.
        until(|| pod.agents.seen().closed.get("unknown_endpoint").is_some_and(|count| *count > 0)).await;
        assert!(pod.connected.0.is_empty());
        pod.sign(&root).await;
        pod.until_connected(true).await;
        // What the operator says about the agent counts here, too.
        let suspended = met().into_iter().map(|(uid, agent)| (uid, Agent { suspended: true, ..agent })).collect();
        pod.configure(suspended);
        pod.until_connected(false).await;
        until(|| pod.agents.seen().closed.contains_key("suspended")).await;
    })
    .await;
}

#[test]
fn sidecars_listen_on_one_port_and_what_is_no_id_names_none() {
    let sidecar = |end: u8| Sidecar { address: [10, 0, 0, end].into(), agents: BTreeSet::from([UID.to_owned()]) };
    let sidecars = BTreeMap::from([("5c1d".to_owned(), sidecar(2)), ("No id".to_owned(), sidecar(3))]);
    let found = sidecar_endpoints(&sidecars, 9182);
    let (address, agents) = (SocketAddr::from(([10, 0, 0, 2], 9182)), BTreeSet::from([UID.to_owned()]));
    let id = EndpointId::new("5c1d").expect("an id");
    assert_eq!(found, BTreeMap::from([(id, endpoint::Sidecar { address, agents })]));
}

#[test]
fn the_port_of_a_sidecar_has_places_for_the_instances_of_all_of_its_gateways() {
    let known = sidecar::bounds().known;
    assert_eq!(known, 2 * sidecar::MAX_GATEWAYS * sidecar::MAX_AGENTS, "an instance replaces its connection");
}
