//! The agent: it dials endpoints, and connects the streams that they request to targets near it.
//!
//! ```text
//! places say ─▶ dial ─▶ HELLO ─▶ session ─▶ carry ─▶ (lost: dial again)
//!                                   └─▶ requests ─▶ allow list ─▶ connect ─▶ relay
//! ```
//!
//! Everything runs on one thread. [`tunnel_core::places`] decides which endpoint is dialled when, and
//! [`tunnel_core::allow`] which targets streams may reach.

mod counted;
mod dial;
mod event;
mod keep;
mod serve;
mod targets;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::select;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tunnel_core::allow::AllowList;
use tunnel_core::hello::{Boot, Hello, Instance, MAX_SESSIONS, Named, SessionName, VERSIONS};
use tunnel_core::identity::{Dial, EndpointId};
use tunnel_core::join::Address;
use tunnel_core::order::Order;
use tunnel_core::places::{Places, Standing, Standings};
use tunnel_core::{Limits, Loss, Pool, Session};

pub use self::event::{Drops, Event, Observer, place};
use crate::Tunnel;
use crate::proxy_connect::Proxy;

/// How often a draining agent checks whether its streams have ended.
const LOOK: Duration = Duration::from_millis(50);
/// The memory that all sessions share: one alone has half of it.
const MEMORY: u64 = 128 * 1024 * 1024;
/// The time limit for sending the last frames.
const FAREWELL: Duration = Duration::from_secs(1);

/// Secures a connection to an endpoint, and verifies the endpoint's identity.
pub trait Connector: 'static {
    /// The secured connection, which carries frames.
    type Io: AsyncRead + AsyncWrite + Unpin + 'static;

    /// Secures a new connection to the endpoint of `dial`.
    fn secure(&self, tcp: TcpStream, dial: &Dial) -> impl Future<Output = io::Result<Self::Io>>;
}

/// The settings of an agent.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Addresses of endpoints. Each attempt uses the first one that accepts a connection, in the order of [`Order`].
    pub addresses: Vec<Address>,
    /// The HTTP proxy of the network.
    pub proxy: Option<Proxy>,
    /// Which of the agent's processes this is.
    pub instance: Instance,
    /// The version of the program, for people.
    pub program: String,
    /// The targets that streams may reach.
    pub allow: AllowList,
    /// The bounds of each session.
    pub limits: Limits,
    /// The most endpoints with a session at once.
    pub max_endpoints: usize,
    /// Time limit to connect to an endpoint, including its proxy and TLS, and to connect to a target.
    pub connect_within: Duration,
    /// Time limit for streams to end after a stop.
    pub drain_within: Duration,
    /// A random number from 0 up to, but not including, 1; spreads the attempts of many agents.
    pub chance: fn() -> f64,
    /// Returns how many bytes written to a socket its peer has not acknowledged; see [`crate::relay()`].
    pub unacknowledged: fn(&TcpStream) -> usize,
}

/// A session with an endpoint.
#[derive(Debug)]
struct Held {
    name: SessionName,
    /// The dial that reaches the endpoint again.
    dial: Dial,
    tunnel: Tunnel,
    suspect: Cell<bool>,
    leaving: Cell<bool>,
    /// How many dropped datagrams of the session were reported.
    dropped: Cell<u64>,
}

impl Held {
    /// How many datagrams the session has dropped since the last call.
    fn dropped(&self) -> u64 {
        let now = self.tunnel.look(|session| session.counters().dropped_datagrams);
        now - self.dropped.replace(now)
    }

    fn is_with_sidecar(&self) -> bool {
        matches!(self.dial, Dial::Sidecar(_))
    }

    fn standing(&self) -> Standing {
        Standing {
            attached: self.tunnel.look(Session::is_attached),
            suspect: self.suspect.get(),
            leaving: self.leaving.get(),
        }
    }
}

struct Agent<C> {
    settings: Settings,
    connector: C,
    observer: Observer,
    boot: Boot,
    start: Instant,
    epoch: Cell<u64>,
    draining: Cell<bool>,
    places: RefCell<Places>,
    /// The order of the addresses in the next attempt.
    order: Cell<Order>,
    /// The memory that the sessions share.
    pool: Rc<Pool>,
    sessions: RefCell<BTreeMap<EndpointId, Rc<Held>>>,
    /// New sessions that no task drives yet.
    begun: RefCell<Vec<(EndpointId, Rc<Held>)>>,
    /// Notified of changes on which the next attempts depend.
    changed: Notify,
}

impl<C> Agent<C> {
    fn tell(&self, event: &Event<'_>) {
        (self.observer)(event);
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn standings(&self) -> Standings {
        let sessions = self.sessions.borrow();
        let wanted = sessions.iter().filter(|(_, held)| !self.draining.get() || !held.tunnel.look(Session::is_empty));
        wanted.map(|(_, held)| (held.dial.clone(), held.standing())).collect()
    }

    /// Handles the other endpoints and sidecars that the far end of a session has named. Names from a sidecar are
    /// ignored: it knows none.
    fn told(&self, held: &Held, by: &EndpointId, Named { peers, sidecars }: Named) {
        if held.is_with_sidecar() {
            return;
        }
        let mut places = self.places.borrow_mut();
        places.told(by, peers);
        places.told_sidecars(sidecars);
        self.changed.notify_one();
    }

    /// Whether nothing is left to send or to wait for.
    fn is_idle(&self) -> bool {
        let is_idle = |session: &Session| session.is_empty() && !session.has_output();
        self.sessions.borrow().values().all(|held| held.tunnel.look(is_idle))
    }

    /// The HELLO for a dial. A sidecar is sent only the session with itself, and endpoints are sent no sessions with
    /// sidecars.
    fn hello(&self, dial: &Dial) -> Hello {
        self.epoch.set(self.epoch.get() + 1);
        let sessions = self.sessions.borrow();
        let named = sessions.values().filter(|held| match dial {
            Dial::Sidecar(_) => held.dial == *dial,
            Dial::Any | Dial::Endpoint(_) => !held.is_with_sidecar(),
        });
        Hello {
            versions: VERSIONS,
            boot: self.boot,
            epoch: self.epoch.get(),
            instance: self.settings.instance.clone(),
            program: self.settings.program.clone(),
            sessions: named.map(|held| held.name).collect(),
        }
    }

    /// Whether there is no room for one more session of the kind of `dial`. Sessions with sidecars take no room from
    /// endpoints: their pods may leave slowly, or never report that they are done.
    fn is_full(&self, dial: &Dial) -> bool {
        let is_sidecar = matches!(dial, Dial::Sidecar(_));
        let sessions = self.sessions.borrow();
        sessions.values().filter(|held| held.is_with_sidecar() == is_sidecar).count() >= MAX_SESSIONS
    }

    fn each(&self, act: impl Fn(&Tunnel)) {
        let tunnels: Vec<Tunnel> = self.sessions.borrow().values().map(|held| held.tunnel.clone()).collect();
        tunnels.iter().for_each(act);
    }
}

/// Runs an agent until `stop` is true, and then until its streams have ended or the time to drain is over. Setting
/// `stop` once more ends that time at once. `boot` identifies this run; it is random. Must run within a `LocalSet`.
pub async fn run<C: Connector>(settings: Settings, connector: C, boot: Boot, stop: watch::Receiver<bool>) {
    let observer: Observer = Rc::new(|event: &Event<'_>| event.trace());
    run_observed(settings, connector, boot, stop, observer).await;
}

/// Like [`run`], but reports events to `observer` instead of the subscriber of `tracing`.
pub async fn run_observed<C: Connector>(
    settings: Settings,
    connector: C,
    boot: Boot,
    mut stop: watch::Receiver<bool>,
    observer: Observer,
) {
    let places = Places::new(settings.max_endpoints);
    let agent = Agent {
        settings,
        connector,
        observer,
        boot,
        start: Instant::now(),
        epoch: Cell::new(0),
        draining: Cell::new(false),
        places: RefCell::new(places),
        order: Cell::default(),
        // As many sessions with endpoints as with sidecars.
        pool: Pool::new(MEMORY, 2 * MAX_SESSIONS),
        sessions: RefCell::default(),
        begun: RefCell::default(),
        changed: Notify::new(),
    };
    let mut tasks = Tasks { agent: Rc::new(agent), dials: JoinSet::new(), keepers: JoinSet::new() };
    {
        // When the sender is gone, nobody could stop the agent, so the agent stops.
        let mut stopped = pin!(async { stop.wait_for(|stop| *stop).await.is_ok() });
        loop {
            let next = tasks.step();
            select! {
                _ = &mut stopped => break,
                () = tasks.wait(next) => {}
            }
        }
    }
    tasks.drain(stop).await;
}

struct Tasks<C> {
    agent: Rc<Agent<C>>,
    /// Attempts; a successful one becomes a carrier.
    dials: JoinSet<()>,
    /// One task for each session.
    keepers: JoinSet<()>,
}

impl<C: Connector> Tasks<C> {
    /// Begins the attempts that are due, and returns when the next one is.
    fn step(&mut self) -> Option<Instant> {
        while self.dials.try_join_next().is_some() {}
        while self.keepers.try_join_next().is_some() {}
        let agent = &self.agent;
        for (id, held) in agent.begun.take() {
            self.keepers.spawn_local(keep::keep(agent.clone(), id, held));
        }
        let standings = agent.standings();
        let due = agent.places.borrow_mut().due(&standings, agent.now());
        for dial in due {
            self.dials.spawn_local(dial::attempt(agent.clone(), dial));
        }
        let next = agent.places.borrow().next(&standings);
        next.map(|at| agent.start + at)
    }

    async fn wait(&self, next: Option<Instant>) {
        let changed = self.agent.changed.notified();
        match next {
            // The caller checks again after the timeout as well as after a change.
            Some(at) => {
                let _ = timeout_at(at, changed).await;
            }
            None => changed.await,
        }
    }

    async fn drain(mut self, mut stop: watch::Receiver<bool>) {
        let agent = self.agent.clone();
        agent.draining.set(true);
        agent.places.borrow_mut().close();
        agent.each(Tunnel::go_away);
        agent.tell(&Event::Draining);
        let deadline = Instant::now() + agent.settings.drain_within;
        let mut hurried = pin!(async move {
            // When the sender is gone, no second stop comes.
            if stop.changed().await.is_err() {
                pending::<()>().await;
            }
        });
        while !agent.is_idle() && Instant::now() < deadline {
            let look = Instant::now() + LOOK;
            let next = self.step();
            select! {
                () = &mut hurried => break,
                () = self.wait(Some(next.map_or(look, |next| next.min(look)))) => {}
            }
        }
        let cut: usize = agent.sessions.borrow().values().map(|held| held.tunnel.look(Session::len)).sum();
        if cut > 0 {
            agent.tell(&Event::Cut(cut));
        }
        self.keepers.shutdown().await;
        let farewell = Instant::now() + FAREWELL;
        while !agent.is_idle() && Instant::now() < farewell {
            self.wait(Some(Instant::now() + LOOK)).await;
        }
        agent.each(|tunnel| tunnel.lose(Loss::Closed));
    }
}
