//! The endpoint, which agents dial: it admits them, keeps a session for each of their instances, and opens streams.
//!
//! Everything runs on one thread. [`tunnel_core::registry`] decides who is admitted.

mod attendance;
mod by_name;
mod hand_over;
mod handing;
mod instances;
mod keep;
mod listen;
mod naming;
mod notices;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::Instant;
use tunnel_core::allow::AllowList;
use tunnel_core::attendance::Attendance;
use tunnel_core::hello::{Answer, Boot, Denial, Denied, Hello, Instance, SessionName, Welcome, agree};
use tunnel_core::identity::{AgentIdentity, EndpointId};
use tunnel_core::notices::Notices;
use tunnel_core::registry::{Admission, Key, Load, Policy, Registry};
use tunnel_core::{Limits, Loss, Open, Pool, Side};

use self::handing::Handing;
use crate::handshake::{HandshakeError, answer, hear};
use crate::{CarryEnd, Flow, OpenError, Stream, Tunnel};

pub use self::by_name::{ByName, listen_by_name};
pub use self::handing::{HANDED, lasting};
pub use self::listen::{Authenticator, listen, listen_holding};
pub use self::naming::Sidecar;

/// The settings of an endpoint.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The id of the endpoint.
    pub id: EndpointId,
    /// Identifies this run; random.
    pub boot: Boot,
    /// The bounds of each session.
    pub limits: Limits,
    /// The most instances of agents with a session at once.
    pub max_agents: usize,
    /// New connections of agents a second; see [`tunnel_core::door::bounds`].
    pub connections_per_second: u32,
}

/// The rules for an agent.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Whether and how the agent may connect.
    pub policy: Policy,
    /// The targets that its streams may reach.
    pub targets: AllowList,
}

/// Why no stream was opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unopened {
    /// There is no such agent.
    #[error("there is no agent with the uid {0}")]
    Unknown(String),
    /// The allow list of the endpoint does not contain the target.
    #[error("{0}")]
    NotAllowed(String),
    /// No instance of the agent has a session.
    #[error("no instance of the agent is connected: start it, or look at its log")]
    NoInstance,
    /// The requested instance has no session.
    #[error("instance {0} of the agent is not connected any more")]
    Gone(Instance),
    /// The answer of the last instance that was asked.
    #[error(transparent)]
    Agent(OpenError),
}

/// One instance of an agent, for status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The identity of the agent.
    pub identity: AgentIdentity,
    /// The name of the instance.
    pub instance: String,
    /// The version of its program.
    pub program: String,
    /// How long its session has lasted.
    pub age: Duration,
    /// Whether the session has a connection.
    pub attached: bool,
    /// Whether the instance takes no new streams.
    pub leaving: bool,
    /// The number of its streams and flows.
    pub streams: usize,
    /// The round trip time; zero before it is known.
    pub round_trip: Duration,
}

#[derive(Debug)]
struct Held {
    key: Key,
    name: SessionName,
    tunnel: Tunnel,
    leaving: Cell<bool>,
}

impl Held {
    fn load(&self) -> Load {
        let (attached, streams) = self.tunnel.look(|session| (session.is_attached(), session.len()));
        Load { leaving: self.leaving.get(), detached: !attached, streams }
    }
}

/// Returns the rules for the agent of a uid, if there is such an agent.
type RulesOf = Box<dyn Fn(&str) -> Option<Rc<Rules>>>;

/// The endpoint that agents dial.
pub struct Endpoint {
    settings: Settings,
    /// The memory that the sessions share.
    pool: Rc<Pool>,
    rules: RulesOf,
    start: Instant,
    registry: RefCell<Registry>,
    sessions: RefCell<BTreeMap<Key, Rc<Held>>>,
    handing: Handing,
    /// Connections that were closed, by reason.
    closed: RefCell<BTreeMap<&'static str, u64>>,
    notices: RefCell<Notices>,
    attendance: RefCell<Attendance>,
    /// Datagrams that were dropped by sessions that have ended.
    dropped: Cell<u64>,
    /// Uids of agents with an instance, or a connection of one, that has come or gone.
    touched: RefCell<BTreeSet<String>>,
    changed: Notify,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("id", &self.settings.id).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Creates an endpoint without agents. `rules` returns the rules for the agent of a uid, if there is one. Each
    /// session is bounded by itself.
    pub fn new(settings: Settings, rules: impl Fn(&str) -> Option<Rc<Rules>> + 'static) -> Rc<Self> {
        Self::within(settings, Pool::new(u64::MAX, 0), rules)
    }

    /// Like [`Endpoint::new`], but the sessions share the memory of `pool`, also with those of other endpoints.
    pub fn within(settings: Settings, pool: Rc<Pool>, rules: impl Fn(&str) -> Option<Rc<Rules>> + 'static) -> Rc<Self> {
        let registry = Registry::new(settings.boot, settings.max_agents);
        let handing = Handing::new(settings.max_agents);
        Rc::new(Self {
            settings,
            pool,
            rules: Box::new(rules),
            start: Instant::now(),
            registry: RefCell::new(registry),
            sessions: RefCell::default(),
            handing,
            closed: RefCell::default(),
            notices: RefCell::default(),
            attendance: RefCell::default(),
            dropped: Cell::new(0),
            touched: RefCell::default(),
            changed: Notify::new(),
        })
    }

    /// Reads the HELLO of the agent behind a verified connection, and answers it. Must run within a `LocalSet`.
    pub async fn admit<Io>(self: &Rc<Self>, identity: &AgentIdentity, mut io: Io) -> Result<Carrier<Io>, HandshakeError>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let hello = hear(&mut io).await?;
        match self.decide(identity, &hello) {
            Ok((welcome, held)) => {
                answer(&mut io, &Answer::Welcome(welcome)).await?;
                Ok(Carrier { io, epoch: hello.epoch, held, endpoint: self.clone() })
            }
            Err(denied) => {
                self.count(denied.reason.as_str());
                answer(&mut io, &Answer::Denied(denied.clone())).await?;
                Err(HandshakeError::Denied(denied))
            }
        }
    }

    fn decide(self: &Rc<Self>, identity: &AgentIdentity, hello: &Hello) -> Result<(Welcome, Rc<Held>), Denied> {
        let rules = (self.rules)(identity.uid());
        let policy = rules.as_ref().map(|rules| &rules.policy);
        let admission = self.registry.borrow_mut().admit(identity, hello, policy, self.start.elapsed());
        let key = Key { uid: identity.uid().to_owned(), instance: hello.instance.clone() };
        let (held, resumed) = match admission {
            Admission::Denied(denied) => return Err(denied),
            Admission::New => (self.begin(key, hello), false),
            Admission::Resume => {
                let held = self.sessions.borrow().get(&key).cloned();
                (held.ok_or_else(|| lost(hello))?, true)
            }
        };
        let welcome = Welcome {
            version: agree(&hello.versions).unwrap_or(*hello.versions.end()),
            endpoint: self.settings.id.clone(),
            boot: self.settings.boot,
            resumed,
            heartbeat: u16::try_from(self.settings.limits.heartbeat.as_secs()).unwrap_or(u16::MAX),
            named: self.named(identity.uid()),
        };
        Ok((welcome, held))
    }

    /// Begins a session. An earlier session of the instance ends, and its streams are reset.
    fn begin(self: &Rc<Self>, key: Key, hello: &Hello) -> Rc<Held> {
        let held = Rc::new(Held {
            key: key.clone(),
            name: SessionName { endpoint: self.settings.boot, born: hello.epoch },
            tunnel: Tunnel::within(Side::Listener, self.settings.limits.clone(), &self.pool),
            leaving: Cell::new(false),
        });
        let before = self.sessions.borrow_mut().insert(key.clone(), held.clone());
        self.touch(&key.uid);
        if let Some(before) = before {
            self.retire(&before);
            before.tunnel.lose(Loss::PeerRestarted);
        }
        keep::begin(self.clone(), key, held.clone());
        held
    }

    /// Asks an instance of the agent to connect a TCP target, and the next instance if one refuses. Instances without a
    /// connection are asked last. The caller bounds the time. Dropping the future gives the stream up.
    pub async fn open(&self, uid: &str, open: &Open) -> Result<Stream, Unopened> {
        let mut failure = Unopened::NoInstance;
        for tunnel in self.candidates(uid, open)? {
            match tunnel.open(open.clone()).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = Unopened::Agent(error),
            }
        }
        Err(failure)
    }

    /// Like [`Endpoint::open`], for a UDP target.
    pub async fn open_flow(&self, uid: &str, open: &Open) -> Result<Flow, Unopened> {
        let mut failure = Unopened::NoInstance;
        for tunnel in self.candidates(uid, open)? {
            match tunnel.open_flow(open.clone()).await {
                Ok(flow) => return Ok(flow),
                Err(error) => failure = Unopened::Agent(error),
            }
        }
        Err(failure)
    }

    /// The sessions of an agent that may be asked for an allowed target, in order.
    fn candidates(&self, uid: &str, open: &Open) -> Result<Vec<Tunnel>, Unopened> {
        self.check(uid, open)?;
        let sessions = self.sessions.borrow();
        let of_agent = sessions.iter().filter(|(key, _)| key.uid == uid);
        let mut loads: Vec<(Load, &Rc<Held>)> = of_agent.map(|(_, held)| (held.load(), held)).collect();
        loads.sort_by_key(|(load, _)| *load);
        Ok(loads.into_iter().map(|(_, held)| held.tunnel.clone()).collect())
    }

    /// Ends the sessions of agents that may no longer be connected. Call it when rules have changed.
    pub fn review(&self) {
        let policy = |identity: &AgentIdentity| (self.rules)(identity.uid()).map(|rules| rules.policy);
        let denied = self.registry.borrow_mut().review(policy);
        for (key, denied) in denied {
            tracing::info!(uid = key.uid, instance = %key.instance, reason = %denied, "closing an agent's session");
            self.attendance.borrow_mut().ended(&key, denied.detail);
            let held = self.sessions.borrow_mut().remove(&key);
            self.touch(&key.uid);
            if let Some(held) = held {
                self.retire(&held);
                held.tunnel.lose(Loss::Closed);
            }
        }
    }

    /// Takes no new sessions, and tells agents to dial elsewhere. Existing streams continue.
    pub fn drain(&self) {
        self.registry.borrow_mut().drain();
        self.each(Tunnel::go_away);
    }

    /// Ends all sessions.
    pub fn close(&self) {
        self.registry.borrow_mut().drain();
        self.each(|tunnel| tunnel.lose(Loss::Closed));
    }

    /// Connections that were closed, by reason: a bound, a limit of time, a fault of the handshake, the reason of a denial,
    /// or a fault of the session.
    pub fn closed(&self) -> BTreeMap<&'static str, u64> {
        self.closed.borrow().clone()
    }

    /// The number of connections that are being handed over to other endpoints.
    pub fn handed_over(&self) -> usize {
        self.handing.count()
    }

    fn count(&self, reason: &'static str) {
        *self.closed.borrow_mut().entry(reason).or_default() += 1;
    }

    fn each(&self, act: impl Fn(&Tunnel)) {
        let tunnels: Vec<Tunnel> = self.sessions.borrow().values().map(|held| held.tunnel.clone()).collect();
        tunnels.iter().for_each(act);
    }
}

/// A connection of an admitted agent.
#[derive(Debug)]
pub struct Carrier<Io> {
    io: Io,
    epoch: u64,
    held: Rc<Held>,
    endpoint: Rc<Endpoint>,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Carrier<Io> {
    /// Carries the session until the connection ends.
    pub async fn carry(self) -> CarryEnd {
        let Held { key, tunnel, .. } = &*self.held;
        // The waiting task runs after the first poll, which makes this connection the carrier.
        self.endpoint.touch(&key.uid);
        let end = tunnel.carry(self.epoch, self.io).await;
        self.endpoint.touch(&key.uid);
        // The last frame may have said that the agent leaves. The task that handles it runs first.
        yield_now().await;
        self.endpoint.note_end_of_carrier(&self.held, &end);
        // An agent that leaves without streams does not return. Clients may still read bytes from before a reset.
        if self.held.leaving.get() && tunnel.look(|session| session.is_given_up() && !session.is_attached()) {
            tunnel.lose(Loss::Closed);
        }
        end
    }
}

/// The denial if an admitted instance has no session, which is a bug of the endpoint. The agent dials again.
fn lost(hello: &Hello) -> Denied {
    let detail = format!("the session of instance {} is gone at the endpoint", hello.instance);
    Denied { reason: Denial::Other, detail }
}
