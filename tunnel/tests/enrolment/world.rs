//! An endpoint that enrols agents, the home of an agent, and a target, on loopback with TLS. The test keeps the clocks.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustls::{ServerConfig, pki_types::UnixTime, sign::SingleCertAndKey, time_provider::TimeProvider};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::TcpListener,
    sync::watch,
    task::{AbortHandle, LocalSet, spawn_local},
    time::{sleep, timeout},
};
use tunnel::{
    Stream, agent,
    endpoint::{self, Endpoint, Rules},
    enrol::{LocalSigner, Way},
    identity::{
        agent::{AgentFolder, Enrolled},
        authority::Authority,
        ledger::LedgerFile,
        tls::{agent_config, server_config},
    },
    secure::{AgentTls, ServerTls},
};
use tunnel_core::{
    Limits, Open, Protocol, Side, Target,
    allow::AllowList,
    hello::Boot,
    identity::{AgentIdentity, AgentName, EndpointId},
    join::{Address, JoinString, Token},
    registry::Policy,
};

use crate::agents;

pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const HOUR: u64 = 3600;
pub(crate) const DAY: u64 = 24 * HOUR;
/// Lifetime of the certificates of agents.
pub(crate) const LIFETIME: u64 = 7 * DAY;
/// The uid of the agent.
const UID: &str = "u-1";

/// Runs a test on one thread, within a deadline.
pub(crate) fn within(test: impl Future<Output = ()>) -> impl Future<Output = ()> {
    // Some tests are too large for a stack.
    let test = timeout(Duration::from_secs(30), Box::pin(test));
    async { LocalSet::new().run_until(test).await.expect("the test in time") }
}

/// Waits for a condition, within the deadline of the test.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        sleep(Duration::from_millis(2)).await;
    }
}

/// A clock that stands at the time that the test has set.
#[derive(Debug)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    pub(crate) fn at(now: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(now)))
    }

    pub(crate) fn set(&self, now: u64) {
        self.0.store(now, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.now())))
    }
}

fn name() -> AgentName {
    AgentName::new("home", "pi4").expect("names")
}

pub(crate) fn identity(rotation: u32) -> AgentIdentity {
    AgentIdentity::new(name(), UID, rotation).expect("an identity")
}

/// An endpoint with its own root, tokens and port.
pub(crate) struct Server {
    pub(crate) authority: Rc<Authority>,
    pub(crate) endpoint: Rc<Endpoint>,
    pub(crate) address: SocketAddr,
    pub(crate) policy: Rc<Cell<Policy>>,
    pub(crate) clock: Arc<Clock>,
    signer: Rc<LocalSigner>,
    config: Arc<ServerConfig>,
    listener: std::net::TcpListener,
    listening: RefCell<Option<AbortHandle>>,
    _folder: TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Clock::at(NOW);
        let authority = Rc::new(Authority::open(folder.path(), NOW).expect("a root"));
        let ledger = LedgerFile::open(folder.path()).expect("tokens");
        let policy = Rc::new(Cell::new(Policy { rotation: 0, suspended: false, is_newer: false, max_instances: 4 }));
        let of = policy.clone();
        let policy_of = move |uid: &str| (uid == UID).then(|| of.get());
        let lifetime = Duration::from_secs(LIFETIME);
        let signer = LocalSigner::new(authority.clone(), ledger, lifetime, clock.clone(), policy_of);

        let id = EndpointId::new("edge-0").expect("an id");
        let leaf = authority.endpoint(&id, Duration::from_secs(365 * DAY), NOW).expect("a leaf");
        let leaf = Arc::new(SingleCertAndKey::from(leaf));
        let config = server_config(leaf, authority.root(), clock.clone()).expect("usable");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("not blocking");
        let server = Self {
            authority,
            endpoint: endpoint_of(id, 1, policy.clone()),
            address: listener.local_addr().expect("an address"),
            policy,
            clock,
            signer: Rc::new(signer),
            config: Arc::new(config),
            listener,
            listening: RefCell::default(),
            _folder: folder,
        };
        server.cut();
        server
    }

    /// Ends all connections, and accepts new ones.
    pub(crate) fn cut(&self) {
        let listener = TcpListener::from_std(self.listener.try_clone().expect("a copy")).expect("a listener");
        let listening = spawn_local(endpoint::listen(self.endpoint.clone(), listener, self.tls())).abort_handle();
        if let Some(before) = self.listening.replace(Some(listening)) {
            before.abort();
        }
    }

    /// Another pod replaces this one at once. It has another id, and knows no sessions and no sidecars.
    pub(crate) fn replaced(mut self, name: &str) -> Self {
        let id = EndpointId::new(name).expect("an id");
        let leaf = self.authority.endpoint(&id, Duration::from_secs(365 * DAY), NOW).expect("a leaf");
        let leaf = Arc::new(SingleCertAndKey::from(leaf));
        let config = server_config(leaf, self.authority.root(), self.clock.clone()).expect("usable");
        self.config = Arc::new(config);
        self.endpoint = endpoint_of(id, 11, self.policy.clone());
        self.cut();
        self
    }

    /// The part that answers clients.
    pub(crate) fn tls(&self) -> ServerTls<LocalSigner> {
        ServerTls::new(self.config.clone(), self.signer.clone())
    }

    /// A join string with a token of this number.
    pub(crate) fn join(&self, number: u8, rotation: u32) -> String {
        let expires = NOW + HOUR;
        self.signer.issue(identity(rotation), &Token::new([number; 32]), 1, expires).expect("issued");
        self.join_string(self.address, number)
    }

    /// A join string with a token that may be unknown, for another address.
    pub(crate) fn join_string(&self, at: SocketAddr, number: u8) -> String {
        let (root, token) = (self.authority.fingerprint(), Token::new([number; 32]));
        JoinString::new(vec![address(at)], root, name(), NOW + HOUR, token).expect("a join string").encode()
    }

    /// Waits until this many instances are connected.
    pub(crate) async fn has(&self, count: usize) {
        until(|| self.endpoint.agents().iter().filter(|view| view.attached).count() == count).await;
    }

    /// How many connections did not become carriers for this reason.
    pub(crate) fn closed(&self, reason: &str) -> u64 {
        self.endpoint.closed().get(reason).copied().unwrap_or_default()
    }

    pub(crate) async fn stream(&self, to: SocketAddr) -> Stream {
        let target = Target { protocol: Protocol::Tcp, host: to.ip().to_string(), port: to.port() };
        self.endpoint.open(UID, &Open { target, source: None }).await.expect("a stream")
    }
}

/// An endpoint whose list has all of loopback. `number` identifies the run.
fn endpoint_of(id: EndpointId, number: u8, policy: Rc<Cell<Policy>>) -> Rc<Endpoint> {
    let targets = AllowList::parse(Side::Listener, &["127.0.0.0/8:1-65535"]).expect("a list");
    let settings = endpoint::Settings {
        id,
        boot: Boot([number; 16]),
        limits: Limits::default(),
        max_agents: 8,
        // A burst of connections need not wait for a turn.
        connections_per_second: 100_000,
    };
    let rules =
        move |uid: &str| (uid == UID).then(|| Rc::new(Rules { policy: policy.get(), targets: targets.clone() }));
    Endpoint::new(settings, rules)
}

pub(crate) fn address(at: SocketAddr) -> Address {
    Address::new(&at.ip().to_string(), at.port()).expect("an address")
}

pub(crate) fn way(clock: &Arc<Clock>) -> Way {
    Way { proxy: None, within: Duration::from_secs(10), clock: clock.clone() }
}

/// The files of an agent.
pub(crate) struct Home {
    pub(crate) folder: AgentFolder,
    temporary: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        let temporary = tempfile::tempdir().expect("a folder");
        Self { folder: AgentFolder::open(&temporary.path().join("agent")).expect("made"), temporary }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.temporary.path().join("agent")
    }

    /// The stored certificate.
    pub(crate) fn kept(&self, now: u64) -> Enrolled {
        let key = self.folder.key().expect("a key");
        self.folder.enrolled(&key, now).expect("usable").expect("a certificate")
    }

    pub(crate) fn tls(&self, enrolled: &Enrolled, clock: &Arc<Clock>) -> AgentTls {
        let key = self.folder.key().expect("a key");
        AgentTls::new(agent_config(&key, enrolled, clock.clone()).expect("usable"))
    }
}

/// An agent that allows all of loopback. It stops when the result is dropped.
pub(crate) fn start_agent(server: &Server, tls: &AgentTls) -> watch::Sender<bool> {
    let settings = agents::settings(address(server.address), None, "pi4", &["127.0.0.0/8:1-65535"]);
    let (stop, stopped) = watch::channel(false);
    spawn_local(agent::run(settings, tls.clone(), Boot([2; 16]), stopped));
    stop
}

/// An echo server.
pub(crate) async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    spawn_local(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.expect("a connection");
            spawn_local(async move {
                let (mut from, mut to) = tcp.split();
                let _ = copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

/// Sends `text` and reads the echo.
pub(crate) async fn echo(stream: &mut Stream, text: &[u8]) {
    stream.write_all(text).await.expect("written");
    let mut read = vec![0; text.len()];
    stream.read_exact(&mut read).await.expect("read");
    assert_eq!(read, text);
}
