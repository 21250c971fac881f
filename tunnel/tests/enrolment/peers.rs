//! Two endpoints behind the address of the first one.

use std::{collections::BTreeMap, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::ring, sign::SingleCertAndKey, version::TLS13};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::spawn_local,
};
use tunnel::{
    endpoint::{self, Endpoint, HANDED, Rules},
    enrol::{LocalSigner, enrol},
    identity::{
        ledger::LedgerFile,
        tls::{server_config, server_name},
    },
    secure::ServerTls,
};
use tunnel_core::{
    Limits, Open, Protocol, Side, Target,
    allow::AllowList,
    hello::Boot,
    identity::{Dial, EndpointId},
};

use super::world::{Home, LIFETIME, NOW, Server, echo, echo_server, identity, start_agent, until, way, within};

fn id(name: &str) -> EndpointId {
    EndpointId::new(name).expect("an id")
}

/// Another endpoint of the same root, at an address that agents do not know.
struct Second {
    endpoint: Rc<Endpoint>,
    address: SocketAddr,
    _folder: TempDir,
}

impl Second {
    async fn start(first: &Server) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = LedgerFile::open(folder.path()).expect("tokens");
        let lifetime = Duration::from_secs(LIFETIME);
        let leaf = first.authority.endpoint(&id("edge-1"), lifetime, NOW).expect("a leaf");
        let leaf = Arc::new(SingleCertAndKey::from(leaf));
        let config = server_config(leaf, first.authority.root(), first.clock.clone()).expect("usable");
        let signer = LocalSigner::new(first.authority.clone(), ledger, lifetime, first.clock.clone(), |_: &str| None);
        let tls = ServerTls::new(Arc::new(config), Rc::new(signer));
        let (policy, limits) = (first.policy.get(), Limits::default());
        let targets = AllowList::parse(Side::Listener, &["127.0.0.0/8:1-65535"]).expect("a list");
        let settings = endpoint::Settings {
            id: id("edge-1"),
            boot: Boot([9; 16]),
            limits,
            max_agents: 8,
            connections_per_second: 1000,
        };
        let endpoint = Endpoint::new(settings, move |_| Some(Rc::new(Rules { policy, targets: targets.clone() })));
        // The source address of the connections that the first endpoint hands over; it is not a peer of the first
        // endpoint itself.
        endpoint.set_peers(BTreeMap::from([(id("edge-0"), first.address)]));
        let listener = TcpListener::bind("127.0.0.2:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        spawn_local(endpoint::listen(endpoint.clone(), listener, tls));
        Self { endpoint, address, _folder: folder }
    }

    fn table(&self) -> BTreeMap<EndpointId, SocketAddr> {
        BTreeMap::from([(id("edge-1"), self.address)])
    }

    async fn has(&self, count: usize) {
        until(|| self.endpoint.agents().iter().filter(|view| view.attached).count() == count).await;
    }
}

/// The first bytes of an agent that dials this endpoint.
fn hello(name: &str) -> Vec<u8> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = builder.with_protocol_versions(&[&TLS13]).expect("a version");
    let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let name = server_name(&Dial::Endpoint(id(name))).expect("a name");
    let mut bytes = Vec::new();
    ClientConnection::new(Arc::new(config), name).expect("a client").write_tls(&mut bytes).expect("written");
    bytes
}

/// Connects, and sends this first.
async fn say(to: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut tcp = TcpStream::connect(to).await.expect("connected");
    tcp.write_all(bytes).await.expect("written");
    tcp
}

/// Whether the far end closes the connection without sending anything.
async fn is_closed(mut tcp: TcpStream) -> bool {
    !tcp.read(&mut [0]).await.is_ok_and(|count| count > 0)
}

#[tokio::test]
async fn an_agent_reaches_each_endpoint_that_is_named_through_the_address_that_it_knows() {
    within(async {
        let (first, home, target) = (Server::start(), Home::new(), echo_server().await);
        let second = Second::start(&first).await;
        let enrolled = enrol(&first.join(1, 0), &home.folder, &way(&first.clock)).await.expect("enrolled");
        assert_eq!(enrolled.identity, identity(0));
        let _agent = start_agent(&first, &home.tls(&enrolled, &first.clock));
        first.has(1).await;
        assert!(second.endpoint.agents().is_empty(), "nobody has named it");
        first.endpoint.set_peers(second.table());
        second.has(1).await;
        assert_eq!((first.endpoint.agents().len(), first.endpoint.handed_over()), (1, 1));
        let to = Target { protocol: Protocol::Tcp, host: target.ip().to_string(), port: target.port() };
        let open = Open { target: to, source: None };
        let mut stream = second.endpoint.open(identity(0).uid(), &open).await.expect("a stream");
        echo(&mut stream, b"handed over").await;
        echo(&mut first.stream(target).await, b"own").await;
        // The endpoint is shutting down: its streams end first, and then the connection.
        first.endpoint.set_peers(BTreeMap::new());
        second.endpoint.drain();
        echo(&mut stream, b"goes on").await;
        second.endpoint.close();
        until(|| second.endpoint.agents().is_empty()).await;
        echo(&mut first.stream(target).await, b"stays").await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_for_an_endpoint_that_is_not_in_the_table_or_was_handed_over_is_closed() {
    within(async {
        let first = Server::start();
        let second = Second::start(&first).await;
        first.endpoint.set_peers(second.table());
        assert!(is_closed(say(first.address, &hello("edge-9")).await).await);
        assert_eq!(first.closed("unknown_endpoint"), 1);
        let marked = [b"\0portlane-handed".as_slice(), &hello("edge-1")].concat();
        assert!(is_closed(say(first.address, &marked).await).await);
        assert_eq!((first.closed("handed_over_again"), first.closed("unknown_endpoint")), (1, 1));
        // Without the mark, the second endpoint answers; with the mark, the first one answers for itself.
        let own = [b"\0portlane-handed".as_slice(), &hello("edge-0")].concat();
        for bytes in [hello("edge-1"), own] {
            assert!(!is_closed(say(first.address, &bytes).await).await);
        }
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_and_too_many_connections_for_others_are_counted() {
    within(async {
        let first = Server::start();
        let gone = TcpListener::bind("127.0.0.2:0").await.expect("a port").local_addr().expect("an address");
        first.endpoint.set_peers(BTreeMap::from([(id("edge-1"), gone)]));
        assert!(is_closed(say(first.address, &hello("edge-1")).await).await);
        assert_eq!(first.closed("hand_over_failed"), 1);
        let silent = TcpListener::bind("127.0.0.2:0").await.expect("a port");
        let address = silent.local_addr().expect("an address");
        first.endpoint.set_peers(BTreeMap::from([(id("edge-1"), address)]));
        let mut waiting = Vec::new();
        for _ in 0..HANDED.per_source {
            waiting.push((say(first.address, &hello("edge-1")).await, silent.accept().await.expect("handed over")));
        }
        assert!(is_closed(say(first.address, &hello("edge-1")).await).await);
        assert_eq!(first.closed("hand_over_full"), 1);
        drop(waiting);
    })
    .await;
}
