//! One local port: its sockets, its pods, and the connections between them.

mod attach;

use std::{
    cell::{Cell, RefCell},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener},
    rc::Rc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kubectl_core::forward::{
    endpoints::{Endpoint, PodId, Unresolved, has_ended, id},
    failure::Refusal,
    mapping::Remote,
    pool::{Pool, SessionId},
    tally::Tally,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::spawn_local,
    time::{Instant, sleep},
};

use self::attach::serve;
use super::Limits;
use crate::{cluster::Cluster, error::Error, output};

/// The most attempts to find a port that is free for both address families.
const TRIES: usize = 16;
/// Pause after a failed `accept(2)`, which usually means that the process has no file descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// The state that all local ports of a target share.
pub(super) struct Shared {
    /// The target, as shown to people.
    pub(super) label: String,
    /// Longest time from the start of a connection until a pod has it.
    pub(super) wait: Duration,
    pub(super) started: Instant,
    /// Most sessions at the same time, and the option that allows more.
    most: (usize, &'static str),
    /// The number of sessions of all targets that share the limit.
    live: Rc<Cell<usize>>,
    pub(super) tally: RefCell<Tally>,
}

impl Shared {
    /// The state that the ports of a target share. `live` is shared with other targets if the limit is.
    pub(super) fn new(label: String, limits: &Limits, live: Rc<Cell<usize>>) -> Self {
        let Limits { wait, max_sessions, option } = *limits;
        let most = (max_sessions, option);
        Self { label, wait, started: Instant::now(), most, live, tally: RefCell::default() }
    }

    /// The time since the start, as `kubectl_core` expects it.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Prints a message to the user.
    pub(super) fn note(&self, text: &str) {
        output::note(&format!("{}: {text}", self.label));
    }

    /// Counts a connection that was refused or broke, and reports it if there was no such report a moment ago.
    pub(super) fn went_wrong(&self, reason: &'static str, text: &str) {
        let unsaid = self.tally.borrow_mut().went_wrong(reason, self.now());
        match unsaid {
            None => {}
            Some(0) => self.note(text),
            Some(unsaid) => self.note(&format!("{text} ({unsaid} more for the same reason)")),
        }
    }

    /// Reports all counts.
    pub(super) fn summarise(&self) {
        self.note(&self.tally.borrow().summary());
    }
}

/// A local port.
pub(super) struct Port {
    pub(super) shared: Rc<Shared>,
    /// The port of the target.
    pub(super) remote: Remote,
    pub(super) pool: RefCell<Pool>,
    /// Notifies of changes to the pool.
    pub(super) changes: watch::Sender<()>,
    pods: RefCell<Api<Pod>>,
    problem: RefCell<Option<Unresolved>>,
}

impl Port {
    /// A local port without endpoints.
    pub(super) fn new(shared: Rc<Shared>, remote: Remote, pods: Api<Pod>) -> Self {
        let pool = RefCell::new(Pool::new(shared.wait));
        let (changes, _) = watch::channel(());
        Self { shared, remote, pool, changes, pods: RefCell::new(pods), problem: RefCell::default() }
    }

    /// Replaces the endpoints. `problem` is the reason for a lack of endpoints, and is reported once.
    pub(super) fn set(&self, endpoints: Vec<Endpoint>, pods: Api<Pod>, problem: Option<Unresolved>) {
        self.pool.borrow_mut().set(endpoints);
        self.pods.replace(pods);
        let before = self.problem.replace(problem.clone());
        if let Some(problem) = problem.filter(|problem| Some(problem) != before.as_ref()) {
            self.shared.note(&problem.to_string());
        }
        self.changes.send_replace(());
    }

    /// The pods of the target.
    pub(super) fn pods(&self) -> Api<Pod> {
        self.pods.borrow().clone()
    }

    /// Returns the number of pods that take connections, and of all pods of the target.
    pub(super) fn counts(&self) -> (usize, usize) {
        self.pool.borrow().counts()
    }

    /// Returns the pods that may have ended with sessions.
    pub(super) fn suspects(&self) -> Vec<PodId> {
        self.pool.borrow_mut().suspects(self.shared.now())
    }

    /// Ends the sessions of a pod if the pod has ended. A pod that cannot be read keeps them.
    pub(super) async fn look_at(self: Rc<Self>, cluster: Cluster, namespace: String, suspect: PodId) {
        let Ok(pod) = cluster.get::<Pod>(&namespace, &suspect.name).await else { return };
        let lives = pod.is_some_and(|pod| id(&pod).as_ref() == Some(&suspect) && !has_ended(&pod));
        if !lives {
            self.pool.borrow_mut().ended(&suspect);
            self.changes.send_replace(());
        }
    }

    /// Waits until the pod of a session has ended.
    pub(super) async fn until_pod_ends(&self, session: SessionId) {
        let mut changes = self.changes.subscribe();
        while !self.pool.borrow().has_ended(session) {
            // The sender lives as long as this value, so the channel stays open.
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Serves clients until the program ends.
    pub(super) async fn accept(self: Rc<Self>, listeners: Rc<Listeners>) {
        loop {
            match listeners.accept().await {
                Ok((client, peer)) => self.clone().admit(client, peer),
                Err(error) => {
                    self.shared.went_wrong("Accept", &format!("cannot accept a connection: {error}"));
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Starts a session, unless the limit is reached.
    fn admit(self: Rc<Self>, client: TcpStream, peer: SocketAddr) {
        let shared = self.shared.clone();
        shared.tally.borrow_mut().opened();
        let (most, option) = shared.most;
        if shared.live.get() >= most {
            let refusal = Refusal::Limit { most, option };
            shared.went_wrong(refusal.reason(), &format!("connection from {peer}: {refusal}"));
            reset(&client);
            return;
        }
        let session = Session::open(self);
        spawn_local(serve(session, client, peer));
    }
}

/// Closes a connection so that the client sees a failure instead of an empty answer.
pub(super) fn reset(client: &TcpStream) {
    // A socket that is closed already needs no reset.
    let _ = client.set_zero_linger();
}

/// A session, which is counted until it is dropped.
pub(super) struct Session {
    pub(super) port: Rc<Port>,
    pub(super) id: SessionId,
}

impl Session {
    fn open(port: Rc<Port>) -> Self {
        let id = port.pool.borrow_mut().open(port.shared.now());
        port.shared.live.set(port.shared.live.get() + 1);
        Self { port, id }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.port.pool.borrow_mut().close(self.id);
        let live = &self.port.shared.live;
        live.set(live.get().saturating_sub(1));
    }
}

/// The sockets of a local port, one per address family of loopback.
pub(super) struct Listeners {
    v4: TcpListener,
    /// The socket for IPv6; absent on a machine without IPv6.
    v6: Option<TcpListener>,
    port: u16,
}

impl Listeners {
    /// Listens on a port. 0 selects a port that is free for both families.
    pub(super) fn bind(port: u16) -> Result<Self, Error> {
        let failed = |source| Error::Listen { port, source };
        for _ in 1..TRIES {
            match Self::try_bind(port) {
                Err(error) if port == 0 && error.kind() == io::ErrorKind::AddrInUse => {}
                bound => return bound.map_err(failed),
            }
        }
        Self::try_bind(port).map_err(failed)
    }

    fn try_bind(port: u16) -> io::Result<Self> {
        let v4 = socket(Ipv4Addr::LOCALHOST.into(), port)?;
        let port = v4.local_addr()?.port();
        let v6 = match socket(Ipv6Addr::LOCALHOST.into(), port) {
            Ok(socket) => Some(socket),
            Err(error) if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {
                return Err(error);
            }
            // The machine has no IPv6.
            Err(_) => None,
        };
        Ok(Self { v4, v6, port })
    }

    /// The number of the port.
    pub(super) fn number(&self) -> u16 {
        self.port
    }

    /// The addresses.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let v6 = self.v6.as_ref().map(|_| SocketAddr::from((Ipv6Addr::LOCALHOST, self.port)));
        [SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))].into_iter().chain(v6).collect()
    }

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match &self.v6 {
            None => self.v4.accept().await,
            Some(v6) => tokio::select! {
                accepted = self.v4.accept() => accepted,
                accepted = v6.accept() => accepted,
            },
        }
    }
}

fn socket(address: IpAddr, port: u16) -> io::Result<TcpListener> {
    let socket = StdListener::bind((address, port))?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

#[cfg(test)]
mod tests {
    use kube::{Client, Config};
    use tokio::{io::AsyncReadExt, task::LocalSet, time::timeout};

    use super::*;

    #[tokio::test]
    async fn a_session_beyond_the_most_is_reset_and_counted_and_one_that_ends_makes_room() {
        let mut config = Config::new("http://127.0.0.1:1".parse().expect("an address"));
        config.root_cert = Some(Vec::new());
        let pods = Api::namespaced(Client::try_from(config).expect("a client"), "shop");
        let (wait, live) = (Duration::from_secs(60), Rc::new(Cell::new(0)));
        // No pod takes a session, so that each one waits.
        let limits = Limits { wait, max_sessions: 1, option: "--max-sessions" };
        let shared = Rc::new(Shared::new("svc/db".to_owned(), &limits, live.clone()));
        let port = Rc::new(Port::new(shared.clone(), Remote::Only, pods));
        let listeners = Rc::new(Listeners::bind(0).expect("a free port"));
        let address = (Ipv4Addr::LOCALHOST, listeners.number());
        let test = async {
            let _serving = spawn_local(port.clone().accept(listeners));
            let _first = TcpStream::connect(address).await.expect("a connection");
            // The reset may come before the client sees that it is connected.
            let second = async { TcpStream::connect(address).await?.read_u8().await };
            let read = timeout(Duration::from_secs(10), second).await.expect("it ends at once");
            assert_eq!(read.expect_err("a reset").kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(shared.tally.borrow().summary(), "2 connections, of which failed: 1 Limit");
            let refusal = Refusal::Limit { most: 1, option: "--max-sessions" };
            assert_eq!(refusal.to_string(), "there are 1 sessions already: raise --max-sessions");
            assert_eq!(live.get(), 1);
            drop(Session::open(port.clone()));
            assert_eq!(live.get(), 1, "one that ends counts no more");
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn a_free_port_is_found_and_a_taken_one_is_named() {
        let listeners = Listeners::bind(0).expect("a free port");
        assert_ne!(listeners.port, 0);
        let why = Listeners::bind(listeners.port).map(drop).expect_err("the port is taken").with_causes();
        assert!(why.contains(&format!("port {}", listeners.port)) && why.contains("in use"), "{why}");
    }
}
