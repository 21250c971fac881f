//! One attempt to connect to an endpoint, and the carrier that comes of it.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};
use tunnel_core::hello::{MAX_SESSIONS, SessionName, Welcome};
use tunnel_core::identity::Dial;
use tunnel_core::join::Address;
use tunnel_core::{Loss, Session, Side};

use super::{Agent, Connector, Held, chain};
use crate::handshake::{HandshakeError, greet};
use crate::reach::{ReachError, reach};
use crate::{CarryEnd, Tunnel};

/// Why an attempt came to nothing.
#[derive(Debug, Error)]
enum DialError {
    #[error("no connection within the time for that: check the address and the way to it")]
    TimedOut,
    #[error(transparent)]
    Reach(ReachError),
    #[error("the connection could not be made safe")]
    Tls(#[source] io::Error),
    #[error(transparent)]
    Handshake(HandshakeError),
    #[error("the endpoint speaks of a session that this agent does not have")]
    Unexpected,
}

struct Connection<Io> {
    io: Io,
    epoch: u64,
    welcome: Welcome,
    held: Rc<Held>,
}

/// Dials, and carries the session until the connection ends.
pub(super) async fn attempt<C: Connector>(agent: Rc<Agent<C>>, dial: Dial) {
    match connect(&agent, &dial).await {
        Ok(connection) => carry(&agent, &dial, connection).await,
        Err(error) => {
            give_up(&agent, &dial, &error);
            let now = agent.now();
            let pause = agent.places.borrow_mut().failed(&dial, now, (agent.settings.chance)());
            let place = match &dial {
                Dial::Any => "any",
                Dial::Endpoint(id) => id.as_str(),
            };
            tracing::warn!(endpoint = place, error = chain(&error), ?pause, "cannot connect, and will try again");
        }
    }
    agent.changed.notify_one();
}

/// An endpoint that does not admit the agent has no session of it either: the streams are over.
fn give_up<C>(agent: &Agent<C>, dial: &Dial, error: &DialError) {
    let (Dial::Endpoint(id), DialError::Handshake(HandshakeError::Denied(denied))) = (dial, error) else { return };
    let held = agent.sessions.borrow().get(id).cloned();
    if let Some(held) = held.filter(|_| denied.reason.ends_session()) {
        held.tunnel.lose(Loss::Closed);
    }
}

async fn connect<C: Connector>(agent: &Agent<C>, dial: &Dial) -> Result<Connection<C::Io>, DialError> {
    let within = agent.settings.connect_within;
    let mut io = timeout(within, secure(agent, dial)).await.map_err(|_| DialError::TimedOut)??;
    // The epoch is taken last, so that of two attempts the later one to say HELLO has the higher one.
    let hello = agent.hello();
    let welcome = greet(&mut io, &hello).await.map_err(DialError::Handshake)?;
    let held = hold(agent, &welcome, hello.epoch).ok_or(DialError::Unexpected)?;
    Ok(Connection { io, epoch: hello.epoch, welcome, held })
}

async fn secure<C: Connector>(agent: &Agent<C>, dial: &Dial) -> Result<C::Io, DialError> {
    let settings = &agent.settings;
    let told = agent.places.borrow().address(dial).cloned();
    let addresses: Vec<Address> = told.into_iter().chain(settings.addresses.iter().cloned()).collect();
    let tcp = reach(&addresses, settings.proxy.as_ref(), settings.connect_within).await.map_err(DialError::Reach)?;
    agent.connector.secure(tcp, dial).await.map_err(DialError::Tls)
}

/// The session that the connection is for. `None` if both ends do not mean the same one, or the answer to a later HELLO
/// came before.
fn hold<C>(agent: &Agent<C>, welcome: &Welcome, epoch: u64) -> Option<Rc<Held>> {
    let id = &welcome.endpoint;
    let known = agent.sessions.borrow().get(id).cloned();
    let same_run = known.as_ref().filter(|held| held.name.endpoint == welcome.boot);
    if welcome.resumed {
        return same_run.cloned();
    }
    let is_late = same_run.is_some_and(|held| held.name.born > epoch);
    if is_late || (known.is_none() && agent.sessions.borrow().len() >= MAX_SESSIONS) {
        return None;
    }
    let mut limits = agent.settings.limits.clone();
    if welcome.heartbeat > 0 {
        limits.heartbeat = Duration::from_secs(welcome.heartbeat.into());
        limits.dead_after = limits.dead_after.max(limits.heartbeat * 2);
    }
    let held = Rc::new(Held {
        name: SessionName { endpoint: welcome.boot, born: epoch },
        tunnel: Tunnel::new(Side::Dialler, limits),
        suspect: false.into(),
        leaving: false.into(),
    });
    agent.sessions.borrow_mut().insert(id.clone(), held.clone());
    agent.begun.borrow_mut().push((id.clone(), held.clone()));
    if let Some(known) = known {
        known.tunnel.lose(Loss::PeerRestarted);
    }
    Some(held)
}

async fn carry<C: Connector>(agent: &Agent<C>, dial: &Dial, connection: Connection<C::Io>) {
    let Connection { io, epoch, welcome, held } = connection;
    let id = welcome.endpoint;
    {
        let mut places = agent.places.borrow_mut();
        places.succeeded(dial);
        places.told(&welcome.peers);
    }
    held.suspect.set(false);
    if agent.draining.get() {
        held.tunnel.go_away();
    }
    tracing::info!(endpoint = %id, resumed = welcome.resumed, "connected");
    agent.changed.notify_one();
    let since = Instant::now();
    let end = held.tunnel.carry(epoch, io).await;
    // What came last may have been that the endpoint leaves: the task that hears of it has its turn first.
    yield_now().await;
    let is_over = |session: &Session| session.is_empty() && !session.is_attached();
    if held.leaving.get() && held.tunnel.look(is_over) {
        held.tunnel.lose(Loss::Closed);
    }
    match end {
        CarryEnd::Replaced | CarryEnd::Stale | CarryEnd::Lost(_) => {
            tracing::debug!(endpoint = %id, reason = %end, "a connection has ended");
        }
        CarryEnd::Closed | CarryEnd::Failed(_) | CarryEnd::Violation(_) | CarryEnd::Silent => {
            let pause = agent.places.borrow_mut().ended(&id, since.elapsed(), agent.now(), (agent.settings.chance)());
            tracing::warn!(endpoint = %id, reason = %end, ?pause, "lost the connection, and will dial again");
        }
    }
}
