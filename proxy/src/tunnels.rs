//! The thread of the tunnels: agents dial it, and workers ask it for connections and flows to targets behind them.
//!
//! ```text
//! worker ─ question ─▶ endpoint: a stream on one instance ─▶ relay ─ pair of sockets ─▶ worker
//!                               a flow on one instance ─▶ datagrams ─ two queues ─▶ worker
//! configuration ─ agents ─▶ rules, join strings          endpoint ─ instances ─▶ supervisor
//!               ─ peers, sidecars ──▶ endpoint, which hands connections for them over
//!                           requests for certificates, connected agents ─▶ stream to the operator, in a cluster
//! ```

mod answer;
mod joins;
pub mod sidecar;
#[cfg(test)]
mod tests;
mod trust;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{Arc, mpsc::sync_channel},
    thread,
    time::Duration,
};

use proxy_api::{Agent, Sidecar};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::TcpListener,
    select,
    sync::{mpsc, watch},
    task::{LocalSet, spawn_local},
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tunnel::{
    endpoint::{self, Endpoint, Rules, View},
    identity::endpoint::EndpointError,
    local::LocalError,
};
use tunnel_core::{
    Limits, Pool, Side,
    allow::AllowList,
    door::CONNECTIONS_PER_SECOND,
    hello::Boot,
    identity::{EndpointId, NameError},
    join::AddressError,
    notices::Notice,
    registry::Policy,
};

use self::trust::Trust;
pub use crate::settings::TunnelSettings as Settings;
use crate::{
    agents::{AgentNews, Agents, Door, ForTunnels, Question, Seen},
    core::{
        backends::instances::{Instances, OfAgent},
        limits::capacity::TunnelMemory,
    },
    files::Files,
    lives::{Life, Lives},
    log::{Level, Log},
    process::Process,
    signing::ToOperator,
};

/// Most instances of all agents at once.
pub const MAX_AGENTS: usize = 1024;
/// The id of an endpoint without a cluster: there are no others.
const ID: &str = "local";
/// Connections that wait to be accepted; the system caps it.
const BACKLOG: i32 = 1024;
/// Pause between two signs of life of the thread.
const BEAT: Duration = Duration::from_secs(1);
/// How long the last bytes of streams may take when the process ends.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often the thread checks meanwhile whether they are sent.
const LOOK: Duration = Duration::from_millis(10);

/// Why there are no tunnels.
#[derive(Debug, thiserror::Error)]
pub enum TunnelsError {
    /// A thread, its runtime or its socket cannot be created.
    #[error("cannot start the thread of the tunnels")]
    Thread(#[source] io::Error),
    /// The system provides no random numbers.
    #[error("cannot get random numbers for the tunnels from the system")]
    Chance(#[source] io::Error),
    /// An advertised address is not valid.
    #[error(transparent)]
    Advertised(#[from] AddressError),
    /// The endpoint has no name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The folder cannot be used.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The folder of an endpoint in a cluster cannot be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

type Configured = watch::Receiver<Arc<ForTunnels>>;
type RulesByUid = Rc<RefCell<BTreeMap<String, Rc<Rules>>>>;

/// Opens the port that agents dial.
///
/// # Errors
/// As `bind(2)`.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Starts the thread, which ends when nobody is left to change `configured`. `news` receives changes of the instances,
/// and `to_operator` requests to an operator, if it signs certificates.
///
/// # Errors
/// See [`TunnelsError`].
pub fn start(
    settings: &Settings,
    listener: std::net::TcpListener,
    process: &Process,
    configured: watch::Receiver<Arc<ForTunnels>>,
    news: Arc<AgentNews>,
    to_operator: ToOperator,
) -> Result<(Agents, thread::JoinHandle<()>), TunnelsError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(TunnelsError::Thread)?;
    let (agents, door, questions) = Agents::served();
    let (settings, log, files) = (settings.clone(), process.log.clone(), process.files.clone());
    let (lives, memory) = (process.lives.clone(), process.tunnels.clone());
    let (opened, is_open) = sync_channel(1);
    let run = move || {
        let life = lives.begin("tunnels");
        LocalSet::new().block_on(&runtime, async move {
            let shared = Shared { door, log, files, lives, news, memory };
            let thread = TcpListener::from_std(listener)
                .map_err(TunnelsError::Thread)
                .and_then(|port| Thread::open(&settings, port, shared, to_operator));
            // The starter waits for this.
            match thread {
                Ok((thread, port)) => {
                    let _ = opened.send(Ok(()));
                    thread.run(port, questions, configured, life).await;
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                }
            }
        });
    };
    let thread = thread::Builder::new().name("tunnels".into()).spawn(run).map_err(TunnelsError::Thread)?;
    is_open.recv().unwrap_or_else(|_| Err(TunnelsError::Thread(io::Error::other("it ended at once"))))?;
    Ok((agents, thread))
}

/// The state that the thread shares with others.
struct Shared {
    door: Arc<Door>,
    log: Log,
    files: Arc<Files>,
    lives: Arc<Lives>,
    news: Arc<AgentNews>,
    memory: Arc<TunnelMemory>,
}

/// The state of the thread.
struct Thread {
    shared: Shared,
    /// The memory of all sessions.
    pool: Rc<Pool>,
    endpoint: Rc<Endpoint>,
    rules: RulesByUid,
    trust: Trust,
    /// The port that agents dial, here and at the other proxies of a gateway.
    port: u16,
    /// The port that agents dial at sidecars.
    sidecar_port: u16,
    /// The instances that were last reported.
    told: Instances,
    /// The configuration in force.
    applied: Arc<ForTunnels>,
}

impl Thread {
    fn open(
        settings: &Settings,
        port: TcpListener,
        shared: Shared,
        to_operator: ToOperator,
    ) -> Result<(Self, TcpListener), TunnelsError> {
        let rules = RulesByUid::default();
        let (of_policy, of_rules) = (rules.clone(), rules.clone());
        let policy = move |uid: &str| -> Option<Policy> { of_policy.borrow().get(uid).map(|rules| rules.policy) };
        let bound = port.local_addr().map_err(TunnelsError::Thread)?;
        let trust = Trust::open(settings, bound, to_operator, &shared.log, policy)?;
        let max_agents = settings.max_agents.min(MAX_AGENTS);
        let of_endpoint = endpoint::Settings {
            id: settings.endpoint.clone().map_or_else(|| EndpointId::new(ID), Ok)?,
            boot: boot()?,
            limits: Limits::default(),
            max_agents,
            connections_per_second: CONNECTIONS_PER_SECOND,
        };
        let pool = Pool::new(shared.memory.bytes(), max_agents);
        let rules_of = move |uid: &str| of_rules.borrow().get(uid).cloned();
        let endpoint = Endpoint::within(of_endpoint, pool.clone(), rules_of);
        let (sidecar_port, told, applied) = (settings.sidecar_port, Instances::default(), Arc::default());
        Ok((Self { shared, pool, endpoint, rules, trust, port: bound.port(), sidecar_port, told, applied }, port))
    }

    async fn run(
        mut self,
        port: TcpListener,
        mut questions: mpsc::Receiver<Question>,
        mut configured: Configured,
        life: Life,
    ) {
        let Shared { files, log, lives, .. } = &self.shared;
        self.trust.listen(self.endpoint.clone(), port, files.clone(), log, lives);
        let (endpoint, door) = (self.endpoint.clone(), self.shared.door.clone());
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            select! {
                Some(question) = questions.recv() => {
                    spawn_local(answer::answer(endpoint.clone(), self.shared.files.clone(), question));
                }
                uids = endpoint.changed() => uids.iter().for_each(|uid| self.tell(uid)),
                changed = configured.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let told = configured.borrow_and_update().clone();
                    self.apply(told);
                }
                () = door.draining.notified() => endpoint.drain(),
                _ = beats.tick() => {
                    life.beat();
                    self.look();
                }
            }
        }
        self.end().await;
    }

    /// Takes the agents, peers and sidecars of another configuration. Pods with sidecars come and go all the time, in
    /// any namespace, so the agents are only compared if they have changed.
    fn apply(&mut self, told: Arc<ForTunnels>) {
        let ForTunnels { agents, peers, sidecars } = &*told;
        self.endpoint.set_peers(endpoints(peers, self.port));
        self.endpoint.set_sidecars(&sidecar_endpoints(sidecars, self.sidecar_port));
        let before = &self.applied.agents;
        if before != agents {
            let rules = rules_again(&self.shared.log, before, &self.rules.borrow(), agents);
            self.rules.replace(rules);
            self.endpoint.review();
            self.trust.apply(&self.shared.log, agents);
        }
        self.applied = told;
    }

    /// Reports the instances of an agent if they, or whether they have a connection, have changed.
    fn tell(&mut self, uid: &str) {
        let now = connected(&self.endpoint.instances_of(uid)).0.remove(uid).unwrap_or_default();
        if self.told.set(uid.into(), now.clone()) {
            self.shared.news.tell(uid.into(), now);
        }
    }

    /// Runs once a second: updates metrics, and does the work that is due.
    fn look(&mut self) {
        let views = self.endpoint.agents();
        let agents = views.iter().filter(|view| view.attached).count();
        let streams = views.iter().map(|view| view.streams).sum();
        self.pool.resize(self.shared.memory.bytes());
        self.shared.door.show(Seen {
            agents,
            streams,
            memory: (self.pool.used(), self.pool.most()),
            dropped_datagrams: self.endpoint.dropped_datagrams(),
            handed: self.endpoint.handed_over(),
            closed: self.endpoint.closed(),
        });
        self.trust.look(&self.shared.log, &views);
        tell_notices(&self.shared.log, &self.endpoint);
    }

    /// Ends with the process. The sessions of workers have ended, but their last bytes may still be in transit.
    async fn end(self) {
        self.endpoint.drain();
        let deadline = Instant::now() + FAREWELL;
        while !self.endpoint.is_idle() && Instant::now() < deadline {
            sleep(LOOK).await;
        }
        self.endpoint.close();
    }
}

/// Logs what an endpoint has to say about agents that connect, are lost, or do not connect.
fn tell_notices(log: &Log, endpoint: &Endpoint) {
    for (level, notices) in [(Level::Info, endpoint.attendance()), (Level::Warn, endpoint.notices())] {
        for Notice { kind, subject, message } in notices {
            log.notice(level, kind, subject, message);
        }
    }
}

/// Creates the name of a run of an endpoint.
fn boot() -> Result<Boot, TunnelsError> {
    let mut boot = [0; 16];
    getrandom::fill(&mut boot).map_err(|error| TunnelsError::Chance(io::Error::other(error.to_string())))?;
    Ok(Boot(boot))
}

/// The rules of each of these agents. Earlier rules are reused if the agent is unchanged.
fn rules_again(
    log: &Log,
    before: &BTreeMap<String, Agent>,
    known: &BTreeMap<String, Rc<Rules>>,
    agents: &BTreeMap<String, Agent>,
) -> BTreeMap<String, Rc<Rules>> {
    let rules = |(uid, agent): (&String, &Agent)| {
        let same = known.get(uid).filter(|_| before.get(uid) == Some(agent)).cloned();
        (uid.clone(), same.unwrap_or_else(|| Rc::new(rules_of(log, agent))))
    };
    agents.iter().map(rules).collect()
}

/// The rules of an agent. A list that cannot be read allows nothing.
fn rules_of(log: &Log, agent: &Agent) -> Rules {
    let max_instances = usize::try_from(agent.max_instances).unwrap_or(usize::MAX);
    let Agent { rotation, suspended, is_newer, .. } = *agent;
    let policy = Policy { rotation, suspended, is_newer, max_instances };
    let targets = AllowList::parse(Side::Listener, &agent.targets).unwrap_or_else(|error| {
        let message = format!("no stream is opened: {error}");
        log.notice(Level::Error, "targets", format!("{}/{}", agent.namespace, agent.name), message);
        AllowList::nothing(Side::Listener)
    });
    Rules { policy, targets }
}

/// The sidecars as endpoints. Invalid ids are omitted.
fn sidecar_endpoints(sidecars: &BTreeMap<String, Sidecar>, port: u16) -> BTreeMap<EndpointId, endpoint::Sidecar> {
    let endpoint = |(id, sidecar): (&String, &Sidecar)| {
        let address = SocketAddr::new(sidecar.address, port);
        Some((EndpointId::new(id).ok()?, endpoint::Sidecar { address, agents: sidecar.agents.clone() }))
    };
    sidecars.iter().filter_map(endpoint).collect()
}

/// The other proxies as endpoints. Invalid ids are omitted.
fn endpoints(peers: &BTreeMap<String, IpAddr>, port: u16) -> BTreeMap<EndpointId, SocketAddr> {
    let endpoint = |(id, ip): (&String, &IpAddr)| Some((EndpointId::new(id).ok()?, SocketAddr::new(*ip, port)));
    peers.iter().filter_map(endpoint).collect()
}

/// The instances on which streams are opened: those with a connection. If an agent has none, those that wait for one,
/// so that a stream waits, too. Instances that leave take no streams.
fn connected(views: &[View]) -> Instances {
    let mut all = BTreeMap::<Arc<str>, OfAgent>::new();
    let none = || OfAgent { names: BTreeSet::new(), detached: true };
    for view in views.iter().filter(|view| !view.leaving) {
        let instances = all.entry(view.identity.uid().into()).or_insert_with(none);
        if view.attached && instances.detached {
            *instances = OfAgent::default();
        }
        if view.attached != instances.detached {
            instances.names.insert(view.instance.as_str().into());
        }
    }
    Instances(all)
}
