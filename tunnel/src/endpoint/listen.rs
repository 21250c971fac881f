//! The port that agents dial.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use proxy_api::doors::{Admission, Bounds, PlaceId, Places, Refusal};
use proxy_api::with_causes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};
use tunnel_core::door::{STRANGERS, bounds};
use tunnel_core::identity::AgentIdentity;

use super::Endpoint;
use super::hand_over::{hand_over, whose};
use super::handing::Whose;
use crate::handshake::{HandshakeError, PATIENCE};
use crate::options;

/// The pause after an error of the listening socket, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Secures a connection of a client, and verifies the client's identity.
pub trait Authenticator: 'static {
    /// The secured connection, which carries frames.
    type Io: AsyncRead + AsyncWrite + Unpin + 'static;

    /// Secures a new connection. `None` if the connection is complete, because the client came for something else.
    fn authenticate(&self, tcp: TcpStream) -> impl Future<Output = io::Result<Option<(AgentIdentity, Self::Io)>>>;
}

/// The places for connections, counted separately for those whose agent is not known yet.
pub(super) struct Door {
    start: Instant,
    places: RefCell<Places>,
    tasks: RefCell<BTreeMap<PlaceId, AbortHandle>>,
}

impl Door {
    pub(super) fn new(bounds: Bounds) -> Rc<Self> {
        let places = RefCell::new(Places::new(bounds));
        Rc::new(Self { start: Instant::now(), places, tasks: RefCell::default() })
    }

    /// Takes a place for a new connection. `count` receives the reason if there is none, and the reason if another
    /// connection is evicted for it.
    pub(super) fn enter(self: &Rc<Self>, from: SocketAddr, count: impl Fn(&'static str)) -> Option<Place> {
        let admission = self.places.borrow_mut().admit(from.ip(), self.start.elapsed());
        let id = match admission {
            Admission::Admit(id) => id,
            Admission::AdmitAfterEvicting { place, evicted } => {
                self.evict(evicted, &count);
                place
            }
            Admission::Refuse(refusal) => {
                count(refusal.as_str());
                return None;
            }
        };
        Some(Place { door: self.clone(), id })
    }

    /// Ends an evicted connection.
    fn evict(&self, evicted: PlaceId, count: impl Fn(&'static str)) {
        count("evicted");
        let task = self.tasks.borrow_mut().remove(&evicted);
        if let Some(task) = task {
            task.abort();
        }
    }
}

/// A place; freed on drop.
pub(super) struct Place {
    door: Rc<Door>,
    pub(super) id: PlaceId,
}

impl Place {
    /// Waits until the handshake may begin. The client waits for the door, so no newcomer evicts it meanwhile.
    pub(super) async fn turn(&self) {
        let turn = self.door.places.borrow().turn(self.id);
        if turn.is_zero() {
            return;
        }
        self.door.places.borrow_mut().asks(self.id, self.door.start.elapsed());
        sleep(turn).await;
        self.door.places.borrow_mut().waits(self.id, self.door.start.elapsed());
    }

    /// Notes that the agent is known: its connection no longer counts as a stranger's.
    fn known(&self, endpoint: &Endpoint) -> Result<(), Refusal> {
        let evicted = self.door.places.borrow_mut().authenticate(self.id, self.door.start.elapsed())?;
        if let Some(evicted) = evicted {
            self.door.evict(evicted, |reason| endpoint.count(reason));
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.door.places.borrow_mut().release(self.id, self.door.start.elapsed());
        self.door.tasks.borrow_mut().remove(&self.id);
    }
}

/// Serves agents for ever. Dropping the future ends their connections; their sessions wait for new ones. Must run
/// within a `LocalSet`.
pub async fn listen<A: Authenticator>(endpoint: Rc<Endpoint>, listener: TcpListener, authenticator: A) {
    listen_holding(endpoint, listener, authenticator, || ()).await;
}

/// Like [`listen`]. A connection keeps what `hold` returns while it is open, also before its agent is known.
pub async fn listen_holding<A: Authenticator, H: 'static>(
    endpoint: Rc<Endpoint>,
    listener: TcpListener,
    authenticator: A,
    hold: impl Fn() -> H + 'static,
) {
    let of_all = bounds(endpoint.settings.connections_per_second, endpoint.settings.max_agents);
    // All agents of an endpoint may be behind one source that hands connections over.
    let of_peers = Bounds { per_source: STRANGERS, ..of_all };
    let (of_all, of_peers) = (Door::new(of_all), Door::new(of_peers));
    let (authenticator, hold) = (Rc::new(authenticator), Rc::new(hold));
    let begin = move |tcp, from: SocketAddr| {
        let door = if endpoint.handing.has(from.ip()) { &of_peers } else { &of_all };
        let place = door.enter(from, |reason| endpoint.count(reason))?;
        let (door, id) = (door.clone(), place.id);
        let kept = hold();
        let hold = hold.clone();
        let task = serve(endpoint.clone(), authenticator.clone(), tcp, from, place, move || hold());
        // Boxed, because a future that moves another one has room for two.
        let task = Box::pin(task);
        let task = async move {
            task.await;
            drop(kept);
        };
        Some(Begun { door, id, task })
    };
    accept(listener, begin).await;
}

/// A connection that has a place.
pub(super) struct Begun<T> {
    pub(super) door: Rc<Door>,
    pub(super) id: PlaceId,
    /// The task that serves the connection.
    pub(super) task: T,
}

/// Accepts connections for ever. `begin` takes a place for each, if there is one.
pub(super) async fn accept<T: Future<Output = ()> + 'static>(
    listener: TcpListener,
    begin: impl Fn(TcpStream, SocketAddr) -> Option<Begun<T>>,
) {
    let mut tasks = JoinSet::new();
    loop {
        select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, from)) => {
                    let Some(Begun { door, id, task }) = begin(tcp, from) else { continue };
                    let handle = tasks.spawn_local(task);
                    door.tasks.borrow_mut().insert(id, handle);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections of agents, will retry");
                    sleep(PAUSE).await;
                }
            },
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
        }
    }
}

async fn serve<A: Authenticator, H>(
    endpoint: Rc<Endpoint>,
    authenticator: Rc<A>,
    mut tcp: TcpStream,
    from: SocketAddr,
    place: Place,
    hold: impl Fn() -> H,
) {
    place.turn().await;
    let deadline = Instant::now() + PATIENCE;
    match timeout_at(deadline, whose(&endpoint, &mut tcp)).await.unwrap_or(Err("timeout")) {
        Ok(Whose::Own) => {}
        Ok(other @ (Whose::Peer(_) | Whose::Sidecar { .. })) => {
            drop(place);
            return Box::pin(hand_over(&endpoint, tcp, from, other, hold)).await;
        }
        Err(reason) => {
            endpoint.count(reason);
            tracing::debug!(%from, reason, "a connection was closed before an agent was admitted");
            return;
        }
    }
    Box::pin(welcome(&endpoint, &*authenticator, tcp, from, place, deadline)).await;
}

/// Authenticates the agent of a connection to this endpoint, and carries its session until the connection ends.
pub(super) async fn welcome<A: Authenticator>(
    endpoint: &Rc<Endpoint>,
    authenticator: &A,
    tcp: TcpStream,
    from: SocketAddr,
    place: Place,
    deadline: Instant,
) {
    // Boxed, so that the memory of the handshake is freed before the connection carries frames, and so that passing the
    // connection on moves only a pointer.
    let authenticated = Box::pin(authenticated(endpoint, authenticator, tcp, from, deadline)).await;
    let Some((identity, io)) = authenticated else { return };
    let carrier = match Box::pin(endpoint.admit(&identity, io)).await {
        Ok(carrier) => carrier,
        Err(error) => {
            // Denials were already counted by their reasons.
            match error {
                HandshakeError::Denied(_) => {}
                HandshakeError::TimedOut => endpoint.count("timeout"),
                _ => endpoint.count("handshake"),
            }
            endpoint.note_not_admitted(&identity, &error);
            tracing::info!(%from, agent = %identity.agent(), error = with_causes(&error), "an agent was not admitted");
            return;
        }
    };
    if let Err(refusal) = place.known(endpoint) {
        endpoint.count(refusal.as_str());
        return;
    }
    endpoint.note_admitted(&carrier.held.key, identity.agent(), from);
    tracing::info!(%from, agent = %identity.agent(), "an agent has connected");
    let end = carrier.carry().await;
    endpoint.note_end(&identity, &end);
    tracing::info!(%from, agent = %identity.agent(), reason = %end, "a connection of an agent has ended");
}

/// Authenticates the agent of a connection. `None`: there is no agent; the reason was counted.
async fn authenticated<A: Authenticator>(
    endpoint: &Endpoint,
    authenticator: &A,
    tcp: TcpStream,
    from: SocketAddr,
    deadline: Instant,
) -> Option<(AgentIdentity, Box<A::Io>)> {
    let secure = async {
        options::of_carrier(&tcp)?;
        authenticator.authenticate(tcp).await
    };
    match timeout_at(deadline, secure).await {
        Ok(Ok(agent)) => agent.map(|(identity, io)| (identity, Box::new(io))),
        Ok(Err(error)) => {
            endpoint.count("handshake");
            endpoint.note_unsecured(from, &error);
            tracing::debug!(%from, error = with_causes(&error), "a connection was closed before an agent was admitted");
            None
        }
        Err(_) => {
            endpoint.count("timeout");
            tracing::debug!(%from, "a connection was closed: no agent was admitted in time");
            None
        }
    }
}
