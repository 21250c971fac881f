//! An endpoint, agents and targets on loopback, with plain TCP between them.

use std::{
    cell::{Cell, RefCell},
    future::ready,
    io,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinHandle, JoinSet, LocalSet, spawn_local},
    time::{sleep, timeout},
};
use tunnel::{
    agent::{self, Connector},
    endpoint::{self, Authenticator, Endpoint, Rules},
    proxy_connect::Proxy,
};
use tunnel_core::{
    Limits, Open, Protocol, Side, Target,
    allow::AllowList,
    hello::{Boot, Instance},
    identity::{AgentIdentity, AgentName, Dial, EndpointId},
    join::Address,
    registry::Policy,
};

/// The uid of the agent.
pub(crate) const UID: &str = "a";

/// Runs a test on one thread, within a deadline.
pub(crate) async fn within(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(timeout(Duration::from_secs(30), test)).await.expect("the test in time");
}

/// Waits for a condition, within the deadline of the test.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        sleep(Duration::from_millis(2)).await;
    }
}

/// Without TLS.
pub(crate) struct Plain;

impl Connector for Plain {
    type Io = TcpStream;

    fn secure(&self, tcp: TcpStream, _: &Dial) -> impl Future<Output = io::Result<TcpStream>> {
        ready(Ok(tcp))
    }
}

/// Every client is the agent.
impl Authenticator for Plain {
    type Io = TcpStream;

    fn authenticate(&self, tcp: TcpStream) -> impl Future<Output = io::Result<Option<(AgentIdentity, TcpStream)>>> {
        let name = AgentName::new("infra", "home").expect("a name");
        ready(Ok(Some((AgentIdentity::new(name, UID, 1).expect("an identity"), tcp))))
    }
}

pub(crate) struct Server {
    pub(crate) endpoint: Rc<Endpoint>,
    pub(crate) address: SocketAddr,
    pub(crate) policy: Rc<Cell<Policy>>,
    listen: AbortHandle,
}

impl Server {
    /// An endpoint whose list has all of loopback, and names. A burst of connections need not wait for a turn.
    pub(crate) async fn start(boot: u8) -> Self {
        Self::start_with(boot, 100_000).await
    }

    /// Like [`Server::start`], for this many new connections a second.
    pub(crate) async fn start_with(boot: u8, connections_per_second: u32) -> Self {
        let policy = Rc::new(Cell::new(Policy { rotation: 1, suspended: false, is_newer: false, max_instances: 4 }));
        let entries = ["127.0.0.0/8:1-65535", "udp/127.0.0.0/8:1-65535", "nowhere.invalid:80"];
        let targets = AllowList::parse(Side::Listener, &entries).expect("a list");
        let settings = endpoint::Settings {
            id: EndpointId::new("edge-0").expect("an id"),
            boot: Boot([boot; 16]),
            limits: Limits::default(),
            max_agents: 8,
            connections_per_second,
        };
        let present = policy.clone();
        let rules =
            move |uid: &str| (uid == UID).then(|| Rc::new(Rules { policy: present.get(), targets: targets.clone() }));
        let endpoint = Endpoint::new(settings, rules);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let listen = spawn_local(endpoint::listen(endpoint.clone(), listener, Plain)).abort_handle();
        Self { endpoint, address, policy, listen }
    }

    /// Ends the connections, as if the process had been killed.
    pub(crate) fn kill(&self) {
        self.listen.abort();
    }

    /// Waits until this many instances are connected.
    pub(crate) async fn has(&self, count: usize) {
        until(|| self.endpoint.agents().iter().filter(|view| view.attached).count() == count).await;
    }

    /// Waits until every instance has said that it leaves.
    pub(crate) async fn is_left(&self) {
        until(|| self.endpoint.agents().iter().all(|view| view.leaving)).await;
    }

    pub(crate) fn streams(&self) -> Vec<usize> {
        self.endpoint.agents().iter().map(|view| view.streams).collect()
    }
}

/// The network between agents and endpoint: it forwards connections, and cuts them.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    pub(crate) to: Rc<Cell<SocketAddr>>,
    /// Connections so far.
    pub(crate) accepted: Rc<Cell<usize>>,
    connections: Rc<RefCell<Vec<AbortHandle>>>,
}

impl Front {
    pub(crate) async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (to, connections) = (Rc::new(Cell::new(to)), Rc::new(RefCell::new(Vec::new())));
        let accepted = Rc::new(Cell::new(0));
        let front = Self { address, to: to.clone(), accepted: accepted.clone(), connections: connections.clone() };
        spawn_local(async move {
            loop {
                let (mut near, _) = listener.accept().await.expect("a connection");
                accepted.set(accepted.get() + 1);
                let to = to.get();
                let task = spawn_local(async move {
                    if let Ok(mut far) = TcpStream::connect(to).await {
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
                connections.borrow_mut().push(task.abort_handle());
            }
        });
        front
    }

    pub(crate) fn cut(&self) {
        for connection in self.connections.borrow_mut().drain(..) {
            connection.abort();
        }
    }
}

pub(crate) struct Running {
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) task: JoinHandle<()>,
}

impl Running {
    /// As if the process had been killed.
    pub(crate) fn kill(&self) {
        self.task.abort();
    }
}

pub(crate) fn address(at: SocketAddr) -> Address {
    Address::new(&at.ip().to_string(), at.port()).expect("an address")
}

/// An agent that dials `address`.
pub(crate) fn start_agent(address: Address, proxy: Option<Proxy>, instance: &str, boot: u8, allow: &[&str]) -> Running {
    let (stop, stopped) = watch::channel(false);
    let settings = settings(address, proxy, instance, allow);
    let task = spawn_local(agent::run(settings, Plain, Boot([boot; 16]), stopped));
    Running { stop, task }
}

/// The settings of an agent that dials `address`.
pub(crate) fn settings(address: Address, proxy: Option<Proxy>, instance: &str, allow: &[&str]) -> agent::Settings {
    agent::Settings {
        addresses: vec![address],
        proxy,
        instance: Instance::new(instance).expect("an instance"),
        program: "0.9.0".to_owned(),
        allow: AllowList::parse(Side::Dialler, allow).expect("a list"),
        limits: Limits::default(),
        max_endpoints: 4,
        connect_within: Duration::from_secs(3),
        drain_within: Duration::from_secs(10),
        // Pauses of a few milliseconds.
        chance: || 0.005,
        unacknowledged: |_| 0,
    }
}

/// An agent that allows all of loopback.
pub(crate) fn agent(at: SocketAddr, instance: &str, boot: u8) -> Running {
    let allow = ["127.0.0.0/8:1-65535", "udp/127.0.0.0/8:1-65535", "nowhere.invalid:80"];
    start_agent(address(at), None, instance, boot, &allow)
}

/// An echo server.
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    pub(crate) live: Rc<Cell<usize>>,
}

impl Echo {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let live = Rc::new(Cell::new(0));
        let count = live.clone();
        spawn_local(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut tcp, _) = listener.accept().await.expect("a connection");
                let count = count.clone();
                count.set(count.get() + 1);
                connections.spawn_local(async move {
                    let (mut from, mut to) = tcp.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                    count.set(count.get() - 1);
                });
            }
        });
        Self { address, live }
    }
}

pub(crate) fn open(protocol: Protocol, host: &str, port: u16) -> Open {
    Open { target: Target { protocol, host: host.to_owned(), port }, source: None }
}

pub(crate) fn to(at: SocketAddr) -> Open {
    open(Protocol::Tcp, &at.ip().to_string(), at.port())
}
