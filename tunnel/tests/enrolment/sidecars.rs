//! Sidecars, to which an endpoint of the server hands connections over.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use rustls::sign::SingleCertAndKey;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::spawn_local,
};
use tunnel::{
    Stream,
    agent::Connector,
    endpoint::{self, ByName, Endpoint, Rules, listen_by_name},
    enrol::{LocalSigner, enrol},
    identity::{ledger::LedgerFile, tls::server_config},
    secure::ServerTls,
};
use tunnel_core::{
    Limits, Open, Protocol, Side, Target,
    allow::AllowList,
    door,
    hello::Boot,
    identity::{Dial, EndpointId},
};

use super::world::{Home, LIFETIME, NOW, Server, echo, echo_server, identity, start_agent, until, way, within};

/// Bytes in transit when connections are cut.
const PIECE: usize = 32 * 1024;

fn id(name: &str) -> EndpointId {
    EndpointId::new(name).expect("an id")
}

/// How a pod appears to the agents of one gateway.
struct Part {
    endpoint: Rc<Endpoint>,
    tls: ServerTls<LocalSigner>,
    folder: TempDir,
}

impl Part {
    /// `number` identifies the run.
    fn new(server: &Server, name: &str, number: u8) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = LedgerFile::open(folder.path()).expect("tokens");
        let lifetime = Duration::from_secs(LIFETIME);
        let leaf = server.authority.sidecar(&id(name), lifetime, NOW).expect("a leaf");
        let leaf = Arc::new(SingleCertAndKey::from(leaf));
        let config = server_config(leaf, server.authority.root(), server.clock.clone()).expect("usable");
        let signer = LocalSigner::new(server.authority.clone(), ledger, lifetime, server.clock.clone(), |_: &str| None);
        let tls = ServerTls::new(Arc::new(config), Rc::new(signer));
        let policy = server.policy.get();
        let targets = AllowList::parse(Side::Listener, &["127.0.0.0/8:1-65535"]).expect("a list");
        let settings = endpoint::Settings {
            id: id(name),
            boot: Boot([number; 16]),
            limits: Limits::default().with_sidecar(),
            max_agents: 8,
            connections_per_second: 1000,
        };
        let endpoint = Endpoint::new(settings, move |_| Some(Rc::new(Rules { policy, targets: targets.clone() })));
        Self { endpoint, tls, folder }
    }
}

/// The entry of the table for the agent of this uid.
fn entry(id: &EndpointId, address: SocketAddr, uid: &str) -> (EndpointId, endpoint::Sidecar) {
    (id.clone(), endpoint::Sidecar { address, agents: BTreeSet::from([uid.to_owned()]) })
}

/// A pod with a sidecar, at an address that agents do not know.
struct Pod {
    id: EndpointId,
    endpoint: Rc<Endpoint>,
    address: SocketAddr,
    _folder: TempDir,
}

impl Pod {
    /// `number` identifies the run.
    async fn start(server: &Server, name: &str, number: u8) -> Self {
        let Part { endpoint, tls, folder } = Part::new(server, name, number);
        let listener = TcpListener::bind("127.0.0.3:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        spawn_local(endpoint::listen(endpoint.clone(), listener, tls));
        Self { id: id(name), endpoint, address, _folder: folder }
    }

    /// The entry of the table for the agent of this uid.
    fn of(&self, uid: &str) -> (EndpointId, endpoint::Sidecar) {
        entry(&self.id, self.address, uid)
    }

    async fn is_reached(&self) {
        until(|| self.endpoint.agents().iter().any(|view| view.attached)).await;
    }

    async fn stream(&self, to: SocketAddr) -> Stream {
        let target = Target { protocol: Protocol::Tcp, host: to.ip().to_string(), port: to.port() };
        self.endpoint.open(identity(0).uid(), &Open { target, source: None }).await.expect("a stream")
    }
}

#[tokio::test]
async fn streams_of_a_sidecar_outlive_whoever_hands_its_connections_over() {
    within(async {
        let (server, home, target) = (Server::start(), Home::new(), echo_server().await);
        let pod = Pod::start(&server, "s1", 8).await;
        let enrolled = enrol(&server.join(1, 0), &home.folder, &way(&server.clock)).await.expect("enrolled");
        let _agent = start_agent(&server, &home.tls(&enrolled, &server.clock));
        server.has(1).await;
        server.endpoint.set_sidecars(&BTreeMap::from([pod.of(identity(0).uid())]));
        pod.is_reached().await;
        let mut stream = pod.stream(target).await;
        let mut read = vec![0; PIECE];
        for round in 1..=8_u8 {
            let piece = vec![round; PIECE];
            stream.write_all(&piece).await.expect("written");
            server.cut();
            stream.read_exact(&mut read).await.expect("read");
            assert!(read == piece, "{round}");
        }
        server.has(1).await;
        echo(&mut server.stream(target).await, b"own").await;
        // The pod is being deleted: it is no longer named to agents, and its session resumes over another connection.
        let leaving = endpoint::Sidecar { address: pod.address, agents: BTreeSet::new() };
        server.endpoint.set_sidecars(&BTreeMap::from([(pod.id.clone(), leaving)]));
        server.cut();
        echo(&mut stream, b"drains").await;
        server.has(1).await;
        // The forward no longer selects the pod: its session resumes.
        server.endpoint.set_sidecars(&BTreeMap::new());
        echo(&mut stream, b"goes on").await;
        assert_eq!(server.closed("unknown_endpoint"), 0);
    })
    .await;
}

#[tokio::test]
async fn streams_of_a_sidecar_outlive_the_loss_of_all_pods_of_the_gateway_at_once() {
    within(async {
        let (server, home, target) = (Server::start(), Home::new(), echo_server().await);
        let pod = Pod::start(&server, "s1", 8).await;
        server.endpoint.set_sidecars(&BTreeMap::from([pod.of(identity(0).uid())]));
        let enrolled = enrol(&server.join(1, 0), &home.folder, &way(&server.clock)).await.expect("enrolled");
        let _agent = start_agent(&server, &home.tls(&enrolled, &server.clock));
        pod.is_reached().await;
        let mut stream = pod.stream(target).await;
        echo(&mut stream, b"before").await;
        // The agent knows the id of no remaining pod.
        let server = server.replaced("edge-1");
        server.endpoint.set_sidecars(&BTreeMap::from([pod.of(identity(0).uid())]));
        echo(&mut stream, b"after").await;
        server.has(1).await;
        // The agent dials the id of the deleted pod, too.
        until(|| server.closed("unknown_endpoint") > 0).await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_hears_of_its_own_sidecars_alone_and_from_none_of_them() {
    within(async {
        let (server, home, target) = (Server::start(), Home::new(), echo_server().await);
        let (other, own) = (Pod::start(&server, "s1", 8).await, Pod::start(&server, "s2", 9).await);
        // The names that a sidecar sends.
        own.endpoint.set_peers(BTreeMap::from([(id("edge-9"), other.address)]));
        server.endpoint.set_sidecars(&BTreeMap::from([other.of("u-2"), own.of(identity(0).uid())]));
        let enrolled = enrol(&server.join(1, 0), &home.folder, &way(&server.clock)).await.expect("enrolled");
        let _agent = start_agent(&server, &home.tls(&enrolled, &server.clock));
        own.is_reached().await;
        // It reconnects twice, and would have dialled others by then.
        for _ in 0..2 {
            let mut stream = own.stream(target).await;
            server.cut();
            echo(&mut stream, b"again").await;
            server.has(1).await;
        }
        assert!(other.endpoint.agents().is_empty());
        assert_eq!(server.closed("unknown_endpoint"), 0, "edge-9 was dialled");
    })
    .await;
}

#[tokio::test]
async fn who_holds_connections_to_one_sidecar_keeps_nobody_from_another() {
    within(async {
        let (server, home, target) = (Server::start(), Home::new(), echo_server().await);
        // The program in place of this sidecar sends nothing, and closes nothing.
        let silent = TcpListener::bind("127.0.0.3:0").await.expect("a port");
        let address = silent.local_addr().expect("an address");
        let pod = Pod::start(&server, "s2", 8).await;
        let of_stranger = entry(&id("s1"), address, "u-2");
        server.endpoint.set_sidecars(&BTreeMap::from([of_stranger, pod.of(identity(0).uid())]));
        let enrolled = enrol(&server.join(1, 0), &home.folder, &way(&server.clock)).await.expect("enrolled");
        let tls = home.tls(&enrolled, &server.clock);
        for _ in 0..=door::SIDECAR_STRANGERS {
            let (tls, to) = (tls.clone(), server.address);
            spawn_local(async move {
                let tcp = TcpStream::connect(to).await.expect("a connection");
                drop(tls.secure(tcp, &Dial::Sidecar(id("s1"))).await);
            });
        }
        until(|| server.closed("hand_over_full") == 1).await;
        let _agent = start_agent(&server, &tls);
        pod.is_reached().await;
        echo(&mut pod.stream(target).await, b"reached").await;
        assert_eq!(server.closed("hand_over_full"), 1);
    })
    .await;
}

#[tokio::test]
async fn a_sidecar_has_an_endpoint_of_each_gateway_behind_one_port() {
    within(Box::pin(async {
        let listener = TcpListener::bind("127.0.0.3:0").await.expect("a port");
        let (address, names) = (listener.local_addr().expect("an address"), Rc::new(ByName::default()));
        spawn_local(listen_by_name(names.clone(), listener, door::of_sidecar(8), || ()));
        let gateways = [("s1", 8), ("s2", 9)].map(|(name, number)| {
            let (server, home) = (Server::start(), Home::new());
            let part = Part::new(&server, name, number);
            names.insert(part.endpoint.clone(), part.tls.clone());
            server.endpoint.set_sidecars(&BTreeMap::from([entry(&id(name), address, identity(0).uid())]));
            (server, home, part)
        });
        let mut agents = Vec::new();
        for (server, home, part) in &gateways {
            let enrolled = enrol(&server.join(1, 0), &home.folder, &way(&server.clock)).await.expect("enrolled");
            agents.push(start_agent(server, &home.tls(&enrolled, &server.clock)));
            until(|| part.endpoint.agents().iter().any(|view| view.attached)).await;
        }
        let closed = || names.closed().get("unknown_endpoint").copied().unwrap_or_default();
        assert_eq!(closed(), 0);
        // No endpoint answers to another id, nor to an id that was removed.
        let (server, home, _) = &gateways[0];
        let tls = home.tls(&home.kept(NOW), &server.clock);
        names.remove(&id("s1"));
        let others = [Dial::Sidecar(id("s3")), Dial::Sidecar(id("s1")), Dial::Endpoint(id("s2"))];
        for (dial, count) in others.iter().zip(1..) {
            let tcp = TcpStream::connect(address).await.expect("a connection");
            assert!(tls.secure(tcp, dial).await.is_err(), "{dial:?}");
            until(|| closed() == count).await;
        }
    }))
    .await;
}
