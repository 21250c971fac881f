//! What an agent accepts from sidecars.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    rc::Rc,
};

use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::spawn_local,
};
use tunnel::{
    agent::{self, Connector, Event, Observer},
    endpoint::{self, Endpoint, Rules, Sidecar},
};
use tunnel_core::{
    Limits, Side,
    allow::AllowList,
    hello::{Boot, Hello, MAX_SESSIONS},
    identity::{Dial, EndpointId},
    places::MAX_SIDECARS,
};

use super::world::{Echo, Plain, Server, UID, address, settings, until, within};
use super::{connect, echo};

/// No TLS; a dial of a sidecar reaches this address.
struct Routed(SocketAddr);

impl Connector for Routed {
    type Io = TcpStream;

    async fn secure(&self, tcp: TcpStream, dial: &Dial) -> io::Result<TcpStream> {
        match dial {
            Dial::Any | Dial::Endpoint(_) => Ok(tcp),
            Dial::Sidecar(_) => TcpStream::connect(self.0).await,
        }
    }
}

#[tokio::test]
async fn a_sidecar_that_speaks_for_an_endpoint_of_the_server_ends_no_session_of_it() {
    within(async {
        // Both have the same id.
        let (server, liar, target) = (Server::start(1).await, Server::start(2).await, Echo::start().await);
        let refused = Rc::new(Cell::new(0));
        let seen = refused.clone();
        let observer: Observer = Rc::new(move |event: &Event<'_>| {
            if matches!(event, Event::NotConnected { dial: Dial::Sidecar(_), kind: "unexpected", .. }) {
                seen.set(seen.get() + 1);
            }
        });
        let settings = settings(address(server.address), None, "pi4", &["127.0.0.0/8:1-65535"]);
        let (_stop, stopped) = watch::channel(false);
        spawn_local(agent::run_observed(settings, Routed(liar.address), Boot([3; 16]), stopped, observer));
        server.has(1).await;
        let mut stream = connect(&server, target.address).await;
        echo(&mut stream, b"before").await;
        let sidecar = Sidecar { address: liar.address, agents: BTreeSet::from([UID.to_owned()]) };
        let id = EndpointId::new("s1").expect("an id");
        server.endpoint.set_sidecars(&BTreeMap::from([(id, sidecar)]));
        until(|| refused.get() > 0).await;
        echo(&mut stream, b"after").await;
        assert_eq!(server.streams(), [1]);
    })
    .await;
}

#[tokio::test]
async fn a_sidecar_hears_of_no_session_with_others() {
    within(async {
        let server = Server::start(1).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let curious = listener.local_addr().expect("an address");
        let settings = settings(address(server.address), None, "pi4", &["127.0.0.0/8:1-65535"]);
        let (_stop, stopped) = watch::channel(false);
        spawn_local(agent::run(settings, Routed(curious), Boot([3; 16]), stopped));
        server.has(1).await;
        let sidecar = Sidecar { address: curious, agents: BTreeSet::from([UID.to_owned()]) };
        let id = EndpointId::new("s1").expect("an id");
        server.endpoint.set_sidecars(&BTreeMap::from([(id, sidecar)]));
        let (mut tcp, _) = listener.accept().await.expect("a connection");
        let mut bytes = Vec::new();
        let hello = loop {
            if let Some((hello, _)) = Hello::read(&bytes).expect("a frame") {
                break hello;
            }
            assert!(tcp.read_buf(&mut bytes).await.expect("connected") > 0);
        };
        assert!(hello.sessions.is_empty(), "{:?}", hello.sessions);
    })
    .await;
}

/// No TLS; a dial of an id reaches its address.
struct ById(Rc<BTreeMap<EndpointId, SocketAddr>>);

impl Connector for ById {
    type Io = TcpStream;

    async fn secure(&self, tcp: TcpStream, dial: &Dial) -> io::Result<TcpStream> {
        match dial.id().and_then(|id| self.0.get(id)) {
            Some(address) => TcpStream::connect(address).await,
            None => Ok(tcp),
        }
    }
}

/// An endpoint or a sidecar with this id, and its address.
async fn behind(server: &Server, id: &EndpointId, number: u8) -> (Rc<Endpoint>, SocketAddr) {
    let settings = endpoint::Settings {
        id: id.clone(),
        boot: Boot([number; 16]),
        limits: Limits::default().with_sidecar(),
        max_agents: 8,
        connections_per_second: 100_000,
    };
    let policy = server.policy.get();
    let rules = move |_: &str| Some(Rc::new(Rules { policy, targets: AllowList::nothing(Side::Listener) }));
    let endpoint = Endpoint::new(settings, rules);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    spawn_local(endpoint::listen(endpoint.clone(), listener, Plain));
    (endpoint, address)
}

fn is_attached(endpoint: &Endpoint) -> bool {
    endpoint.agents().iter().any(|view| view.attached)
}

#[tokio::test]
async fn sidecars_that_leave_and_never_go_keep_an_agent_from_no_endpoint() {
    within(async {
        let server = Server::start(1).await;
        let (mut sidecars, mut addresses) = (Vec::new(), BTreeMap::new());
        for number in 0..MAX_SESSIONS {
            let id = EndpointId::new(&format!("s{number}")).expect("an id");
            let (endpoint, address) = behind(&server, &id, u8::try_from(number + 10).expect("few")).await;
            addresses.insert(id.clone(), address);
            sidecars.push((id, endpoint));
        }
        let second = EndpointId::new("edge-1").expect("an id");
        let (endpoint, at) = behind(&server, &second, 2).await;
        addresses.insert(second.clone(), at);
        let addresses = Rc::new(addresses);
        let settings = settings(address(server.address), None, "pi4", &["127.0.0.0/8:1-65535"]);
        let (_stop, stopped) = watch::channel(false);
        spawn_local(agent::run(settings, ById(addresses.clone()), Boot([3; 16]), stopped));
        server.has(1).await;
        for some in sidecars.chunks(MAX_SIDECARS) {
            let entry = |(id, _): &(EndpointId, Rc<Endpoint>)| {
                (id.clone(), Sidecar { address: addresses[id], agents: BTreeSet::from([UID.to_owned()]) })
            };
            server.endpoint.set_sidecars(&some.iter().map(entry).collect());
            until(|| some.iter().all(|(_, sidecar)| is_attached(sidecar))).await;
            for (_, sidecar) in some {
                sidecar.drain();
            }
        }
        server.endpoint.set_peers(BTreeMap::from([(second, at)]));
        until(|| is_attached(&endpoint)).await;
        assert!(sidecars.iter().all(|(_, sidecar)| is_attached(sidecar)), "none was given up");
    })
    .await;
}
