//! The tunnels of a sidecar. Agents reach it through the pods of their gateways, which hand the connections over.
//!
//! ```text
//! agent ─▶ pod of gateway G ─ bytes as they are ─▶ port ─ server name ─▶ endpoint of G ─▶ answers, as in a gateway
//! ```
//!
//! There is one endpoint for each gateway, because each gateway has a root of its own. The thread starts with the first
//! configuration that has agents, so that other sidecars run without it. The port is open while there are agents.

mod gateway;
mod start;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use proxy_api::{doors::Bounds, with_causes};
use tokio::{
    net::TcpListener,
    select,
    sync::{Notify, mpsc, watch},
    task::{AbortHandle, spawn_local},
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tunnel::{
    endpoint::{ByName, Endpoint, Rules, listen_by_name},
    remote::Nobody,
    secure::ServerTls,
};
use tunnel_core::{Pool, door};

use self::{
    gateway::Gateway,
    start::{Parts, begin, start},
};
use super::{BEAT, FAREWELL, LOOK, Shared, answer, bind, connected, rules_of, tell_notices, trust};
pub use crate::settings::SidecarSettings as Settings;
use crate::{
    agents::{AgentNews, Agents, ForTunnels, Question, Seen},
    core::backends::instances::Instances,
    files::Files,
    lives::Life,
    log::{Level, Log},
    process::Process,
    signing::ToOperator,
};

/// The most gateways whose agents one sidecar reaches.
pub const MAX_GATEWAYS: usize = 4;
/// The most instances of one gateway's agents at once.
pub const MAX_AGENTS: usize = 256;
/// Pause before another attempt to open the port.
const PAUSE: Duration = Duration::from_secs(10);

/// The thread of the tunnels, once it has started.
pub type Started = Arc<Mutex<Option<thread::JoinHandle<()>>>>;
/// Starts the thread when it is needed.
pub type Starts = Pin<Box<dyn Future<Output = ()> + Send>>;

type Names = Rc<ByName<ServerTls<Nobody>>>;

/// Creates the channel to agents, and the future that starts the thread with the first configuration that has agents.
/// `news` receives changes of the instances. The thread ends when all senders of `configured` are gone.
#[must_use]
pub fn wait(
    settings: &Settings,
    process: &Process,
    configured: watch::Receiver<Arc<ForTunnels>>,
    news: Arc<AgentNews>,
    to_operator: ToOperator,
    started: Started,
) -> (Agents, Starts) {
    let (agents, door, questions) = Agents::served();
    let (log, files, lives) = (process.log.clone(), process.files.clone(), process.lives.clone());
    let shared = Shared { door, log, files, lives, news, memory: process.tunnels.clone() };
    let parts = Parts { settings: settings.clone(), shared, to_operator, questions, configured };
    (agents, Box::pin(start(parts, started, begin)))
}

/// The reports of tasks to the thread.
#[derive(Default)]
struct Woken {
    /// Uids of agents with an instance, or a connection of one, that has come or gone.
    touched: RefCell<BTreeSet<String>>,
    /// Notified when an uid was added, or a gateway got its serving certificate.
    notify: Notify,
}

/// The state of the thread.
struct Thread {
    settings: Settings,
    shared: Shared,
    /// The memory of all sessions, with the agents of all gateways.
    pool: Rc<Pool>,
    /// Asks the operator for certificates, and tells it which agents are connected.
    to_operator: ToOperator,
    /// The gateways, by uid.
    gateways: BTreeMap<String, Gateway>,
    names: Names,
    /// The task that listens for agents, while there are any.
    port: Option<AbortHandle>,
    woken: Rc<Woken>,
    /// The instances that were last reported.
    told: Instances,
    /// The counters of endpoints whose gateways are gone.
    past: Seen,
}

impl Thread {
    fn new(settings: Settings, shared: Shared, to_operator: ToOperator) -> Self {
        let (gateways, names, woken) = (BTreeMap::new(), Names::default(), Rc::default());
        let (told, past) = (Instances::default(), Seen::default());
        let pool = Pool::new(shared.memory.bytes(), MAX_GATEWAYS * MAX_AGENTS);
        Self { settings, shared, pool, to_operator, gateways, names, port: None, woken, told, past }
    }

    async fn run(
        mut self,
        mut questions: mpsc::Receiver<Question>,
        mut configured: watch::Receiver<Arc<ForTunnels>>,
        life: Life,
    ) {
        let (woken, door) = (self.woken.clone(), self.shared.door.clone());
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            select! {
                Some(question) = questions.recv() => self.answer(question),
                () = woken.notify.notified() => self.wake(),
                changed = configured.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let told = configured.borrow_and_update().clone();
                    self.apply(&told);
                }
                () = door.draining.notified() => self.endpoints().for_each(|endpoint| endpoint.drain()),
                _ = beats.tick() => {
                    life.beat();
                    self.look();
                }
            }
        }
        self.end().await;
    }

    /// The endpoints of gateways that have a serving certificate.
    fn endpoints(&self) -> impl Iterator<Item = &Rc<Endpoint>> {
        self.gateways.values().filter_map(Gateway::endpoint)
    }

    fn answer(&self, question: Question) {
        let gateway = self.gateways.values().find(|gateway| gateway.has(&question.to.uid));
        match gateway.and_then(Gateway::endpoint) {
            Some(endpoint) => {
                spawn_local(answer::answer(endpoint.clone(), self.shared.files.clone(), question));
            }
            None => answer::refuse(question),
        }
    }

    /// Handles what tasks have reported.
    fn wake(&mut self) {
        self.open();
        let touched = self.woken.touched.take();
        for uid in &touched {
            self.tell(uid);
        }
    }

    /// Opens the endpoints of gateways that have got their serving certificate.
    fn open(&mut self) {
        for gateway in self.gateways.values_mut() {
            if let Err(error) = gateway.open(&self.names, &self.pool, &self.woken) {
                self.shared.log.notice(Level::Error, "tunnels", "the agents of this sidecar", with_causes(&error));
            }
        }
    }

    /// Applies the agents of a new configuration.
    fn apply(&mut self, told: &ForTunnels) {
        let mut all = BTreeMap::<&String, BTreeMap<String, Rc<Rules>>>::new();
        for (uid, agent) in &told.agents {
            let Some(gateway) = &agent.gateway else { continue };
            all.entry(gateway).or_default().insert(uid.clone(), Rc::new(rules_of(&self.shared.log, agent)));
        }
        let gone: Vec<String> = self.gateways.keys().filter(|uid| !all.contains_key(*uid)).cloned().collect();
        for uid in gone {
            self.leave(&uid);
        }
        for (uid, rules) in all {
            if let Some(gateway) = self.join(uid) {
                gateway.set(rules);
            }
        }
        self.open();
        self.listen();
    }

    /// The gateway of this uid. `None` if it cannot be used.
    fn join(&mut self, uid: &str) -> Option<&Gateway> {
        if !self.gateways.contains_key(uid) {
            let made = if self.gateways.len() < MAX_GATEWAYS {
                let told = (self.shared.log.clone(), &self.shared.lives);
                Gateway::new(uid, &self.settings.folder, self.to_operator.asks.clone(), told, &self.woken)
                    .map_err(|error| with_causes(&error))
            } else {
                Err(format!(
                    "a sidecar connects to the agents of at most {MAX_GATEWAYS} gateways: place the forwards that use \
                     the agents of this gateway on the gateway itself"
                ))
            };
            match made {
                Ok(gateway) => drop(self.gateways.insert(uid.to_owned(), gateway)),
                Err(why) => {
                    let subject = format!("the agents of the gateway with the uid {uid}");
                    self.shared.log.notice(Level::Error, "tunnels", subject, why);
                }
            }
        }
        self.gateways.get(uid)
    }

    /// Removes a gateway without agents.
    fn leave(&mut self, uid: &str) {
        let Some(gateway) = self.gateways.remove(uid) else { return };
        let agents = gateway.set(BTreeMap::new());
        if let Some(endpoint) = gateway.endpoint() {
            self.names.remove(endpoint.id());
            count(&mut self.past, endpoint);
        }
        for uid in agents.keys() {
            self.tell(uid);
        }
    }

    /// Opens the port if there are agents, and closes it if there are none.
    fn listen(&mut self) {
        if self.gateways.is_empty() {
            if let Some(port) = self.port.take() {
                port.abort();
            }
        } else if self.port.is_none() {
            let Shared { files, log, lives, .. } = &self.shared;
            let task = listen(self.settings.address, self.names.clone(), files.clone(), log.clone());
            self.port = Some(spawn_local(lives.clone().watch(trust::PORT, task)).abort_handle());
        }
    }

    /// Reports the instances of an agent if they, or whether they have a connection, have changed.
    fn tell(&mut self, uid: &str) {
        let views: Vec<_> = self.endpoints().flat_map(|endpoint| endpoint.instances_of(uid)).collect();
        let now = connected(&views).0.remove(uid).unwrap_or_default();
        if self.told.set(uid.into(), now.clone()) {
            self.shared.news.tell(uid.into(), now);
        }
    }

    /// Runs once a second: updates metrics, and reports to the operator what it does not know yet.
    fn look(&mut self) {
        let mut seen = self.past.clone();
        add(&mut seen.closed, self.names.closed());
        let mut views = Vec::new();
        for endpoint in self.endpoints() {
            views.extend(endpoint.agents());
            count(&mut seen, endpoint);
            tell_notices(&self.shared.log, endpoint);
        }
        seen.agents = views.iter().filter(|view| view.attached).count();
        seen.streams = views.iter().map(|view| view.streams).sum();
        self.pool.resize(self.shared.memory.bytes());
        seen.memory = (self.pool.used(), self.pool.most());
        trust::tell(&self.to_operator.connected, &views);
        self.shared.door.show(seen);
    }

    /// Ends with the process. The sessions of workers have ended, but their last bytes may still be in transit.
    async fn end(self) {
        self.endpoints().for_each(|endpoint| endpoint.drain());
        let deadline = Instant::now() + FAREWELL;
        while !self.endpoints().all(|endpoint| endpoint.is_idle()) && Instant::now() < deadline {
            sleep(LOOK).await;
        }
        self.endpoints().for_each(|endpoint| endpoint.close());
    }
}

/// Adds the counters of an endpoint.
fn count(seen: &mut Seen, endpoint: &Endpoint) {
    seen.dropped_datagrams += endpoint.dropped_datagrams();
    add(&mut seen.closed, endpoint.closed());
}

fn add(all: &mut BTreeMap<&'static str, u64>, more: BTreeMap<&'static str, u64>) {
    for (reason, count) in more {
        *all.entry(reason).or_default() += count;
    }
}

/// Serves agents at an address, within a `LocalSet`. While another program has the port, it retries.
async fn listen(address: SocketAddr, names: Names, files: Arc<Files>, log: Log) {
    let mut is_told = false;
    let port = loop {
        match bind(address).and_then(TcpListener::from_std) {
            Ok(port) => break port,
            Err(error) if is_told => tracing::debug!(%address, %error, "the port for agents is not free yet"),
            Err(error) => {
                is_told = true;
                let message = format!("{}; will retry every {} s", taken(address, &error), PAUSE.as_secs());
                log.notice(Level::Error, "tunnels", "the agents of this sidecar", message);
            }
        }
        sleep(PAUSE).await;
    };
    if is_told {
        log.notice(Level::Info, "tunnels", "the agents of this sidecar", format!("{address} is open"));
    }
    // Connections of agents take files even when few are free, because the sessions of clients need them; their number
    // is bounded.
    listen_by_name(names, port, bounds(), move || files.take_anyway(1)).await;
}

/// The bounds of the port, which the agents of all gateways share.
pub(super) fn bounds() -> Bounds {
    door::of_sidecar(MAX_GATEWAYS * MAX_AGENTS)
}

/// Why the port for agents cannot be opened, and the remedy.
fn taken(address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "port {port} of this pod, where agents reach its sidecar, is in use: move the app, or the listener that is \
                 bound to all addresses, to another port"
            )
        }
        _ => format!("cannot listen on {address}, where agents reach this sidecar: {error}"),
    }
}
