//! One attempt to connect to an endpoint, and the carrier that results.

use std::cell::OnceCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use proxy_api::with_causes;
use thiserror::Error;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};
use tunnel_core::hello::{SessionName, Welcome};
use tunnel_core::identity::Dial;
use tunnel_core::join::Address;
use tunnel_core::{Loss, Session, Side};

use super::{Agent, Connector, Event, Held};
use crate::handshake::{HandshakeError, greet};
use crate::reach::{ReachError, reach};
use crate::{CarryEnd, Tunnel};

/// Why an attempt failed.
#[derive(Debug, Error)]
enum DialError {
    #[error("no connection in time: check the address and the network path to it")]
    TimedOut,
    #[error(transparent)]
    Reach(ReachError),
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    #[error(transparent)]
    Handshake(HandshakeError),
    #[error("the endpoint is not the one that was dialled, or answered with a session that this agent does not have")]
    Unexpected,
}

impl DialError {
    /// The kind of failure, one word.
    fn kind(&self) -> &'static str {
        match self {
            Self::TimedOut => "timed_out",
            Self::Reach(ReachError::Nowhere) => "no_address",
            Self::Reach(ReachError::Unreachable { .. }) => "unreachable",
            Self::Reach(ReachError::Proxy(_)) => "proxy",
            Self::Tls(_) => "tls",
            Self::Handshake(HandshakeError::Denied(denied)) => denied.reason.as_str(),
            Self::Handshake(_) => "handshake",
            Self::Unexpected => "unexpected",
        }
    }

    /// Whether no server answered on a connection: another address may lead to one.
    fn is_without_answer(&self) -> bool {
        match self {
            Self::TimedOut | Self::Tls(_) => true,
            Self::Handshake(error) => !matches!(error, HandshakeError::Denied(_) | HandshakeError::Version { .. }),
            Self::Reach(_) | Self::Unexpected => false,
        }
    }

    /// Whether the server closed the connection before the handshake.
    fn is_turned_away(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        let Self::Tls(error) = self else { return false };
        matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
    }
}

struct Connection<Io> {
    /// Boxed, so that the futures that pass it on stay small.
    io: Box<Io>,
    address: Address,
    epoch: u64,
    welcome: Welcome,
    held: Rc<Held>,
}

/// Dials, and carries the session until the connection ends.
pub(super) async fn attempt<C: Connector>(agent: Rc<Agent<C>>, dial: Dial) {
    // Boxed, so that the memory of the handshake is freed before the connection carries frames.
    let connected = Box::pin(connect(&agent, &dial)).await;
    match connected {
        Ok(connection) => carry(&agent, &dial, connection).await,
        Err(error) => {
            give_up(&agent, &dial, &error);
            let pause = pause(&agent, &dial, &error);
            agent.tell(&Event::NotConnected { dial: &dial, kind: error.kind(), error: &with_causes(&error), pause });
        }
    }
    agent.changed.notify_one();
}

/// Notes that an attempt has failed. Returns the pause before the next one.
fn pause<C>(agent: &Agent<C>, dial: &Dial, error: &DialError) -> Duration {
    let (now, chance) = (agent.now(), (agent.settings.chance)());
    let mut places = agent.places.borrow_mut();
    // With several addresses, the next attempt is at another one.
    if error.is_turned_away() && agent.settings.addresses.len() == 1 {
        places.turned_away(dial, now, chance)
    } else {
        places.failed(dial, now, chance)
    }
}

/// Ends the session with an endpoint that denies the agent: the endpoint has none either, so the streams end.
fn give_up<C>(agent: &Agent<C>, dial: &Dial, error: &DialError) {
    let (Some(id), DialError::Handshake(HandshakeError::Denied(denied))) = (dial.id(), error) else { return };
    let held = agent.sessions.borrow().get(id).cloned();
    if let Some(held) = held.filter(|_| denied.reason.ends_session()) {
        held.tunnel.lose(Loss::Closed);
    }
}

async fn connect<C: Connector>(agent: &Agent<C>, dial: &Dial) -> Result<Connection<C::Io>, DialError> {
    let reached = OnceCell::new();
    let connected = connect_at(agent, dial, &reached).await;
    if let Some(address) = reached.get() {
        let (mut order, all) = (agent.order.get(), &agent.settings.addresses);
        match &connected {
            Ok(_) => order.works(all, address),
            // A missing endpoint says nothing about the address.
            Err(error) if error.is_without_answer() && agent.places.borrow().is_named(dial) => {
                order.fails(all, address);
            }
            Err(_) => {}
        }
        agent.order.set(order);
    }
    connected
}

/// Sets `reached` to the address that took the connection, also if the attempt fails after that.
async fn connect_at<C: Connector>(
    agent: &Agent<C>,
    dial: &Dial,
    reached: &OnceCell<Address>,
) -> Result<Connection<C::Io>, DialError> {
    let within = agent.settings.connect_within;
    let secured = timeout(within, secure(agent, dial, reached)).await;
    let (mut io, address) = secured.map_err(|_| DialError::TimedOut)??;
    // The epoch is taken last, so that of two attempts the later one to say HELLO has the higher one.
    let hello = agent.hello(dial);
    let welcome = greet(&mut io, &hello).await.map_err(DialError::Handshake)?;
    let held = hold(agent, dial, &welcome, hello.epoch).ok_or(DialError::Unexpected)?;
    Ok(Connection { io, address, epoch: hello.epoch, welcome, held })
}

async fn secure<C: Connector>(
    agent: &Agent<C>,
    dial: &Dial,
    reached: &OnceCell<Address>,
) -> Result<(Box<C::Io>, Address), DialError> {
    let settings = &agent.settings;
    let addresses = agent.order.get().of(&settings.addresses);
    // Any endpoint hands the connection over to the endpoint that is dialled.
    let connected = reach(&addresses, settings.proxy.as_ref(), settings.connect_within).await;
    let (tcp, address) = connected.map_err(DialError::Reach)?;
    let address = reached.get_or_init(|| address).clone();
    let io = agent.connector.secure(tcp, dial).await.map_err(DialError::Tls)?;
    Ok((Box::new(io), address))
}

/// The session for the connection. `None` if the two ends mean different sessions, or if the answer to a later HELLO
/// arrived first. A sidecar may only answer for itself: otherwise it could end the sessions of others.
fn hold<C>(agent: &Agent<C>, dial: &Dial, welcome: &Welcome, epoch: u64) -> Option<Rc<Held>> {
    let id = &welcome.endpoint;
    let back = match dial {
        Dial::Sidecar(dialled) if dialled != id => return None,
        Dial::Sidecar(_) => dial.clone(),
        Dial::Any | Dial::Endpoint(_) => Dial::Endpoint(id.clone()),
    };
    let known = agent.sessions.borrow().get(id).cloned();
    let same_run = known.as_ref().filter(|held| held.name.endpoint == welcome.boot);
    if welcome.resumed {
        return same_run.cloned();
    }
    let is_late = same_run.is_some_and(|held| held.name.born > epoch);
    if is_late || (known.is_none() && agent.is_full(dial)) {
        return None;
    }
    let mut limits = agent.settings.limits.clone();
    if matches!(dial, Dial::Sidecar(_)) {
        limits = limits.with_sidecar();
    }
    if welcome.heartbeat > 0 {
        limits.heartbeat = Duration::from_secs(welcome.heartbeat.into());
        limits.dead_after = limits.dead_after.max(limits.heartbeat * 2);
    }
    let held = Rc::new(Held {
        name: SessionName { endpoint: welcome.boot, born: epoch },
        dial: back,
        tunnel: Tunnel::within(Side::Dialler, limits, &agent.pool),
        suspect: false.into(),
        leaving: false.into(),
        dropped: 0.into(),
    });
    agent.sessions.borrow_mut().insert(id.clone(), held.clone());
    agent.begun.borrow_mut().push((id.clone(), held.clone()));
    if let Some(known) = known {
        known.tunnel.lose(Loss::PeerRestarted);
    }
    Some(held)
}

async fn carry<C: Connector>(agent: &Agent<C>, dial: &Dial, connection: Connection<C::Io>) {
    let Connection { io, address, epoch, welcome, held } = connection;
    let id = welcome.endpoint;
    let (leaves, now) = (held.leaving.get(), agent.now());
    agent.places.borrow_mut().succeeded(dial, leaves, now, (agent.settings.chance)());
    agent.told(&held, &id, welcome.named);
    held.suspect.set(false);
    if agent.draining.get() {
        held.tunnel.go_away();
    }
    agent.tell(&Event::Connected { endpoint: &id, address: &address, resumed: welcome.resumed });
    agent.changed.notify_one();
    let since = Instant::now();
    let end = held.tunnel.carry(epoch, io).await;
    // The last frame may have said that the endpoint leaves. The task that handles it runs first.
    yield_now().await;
    let is_over = |session: &Session| session.is_empty() && !session.is_attached();
    if held.leaving.get() && held.tunnel.look(is_over) {
        held.tunnel.lose(Loss::Closed);
    }
    let pause = match end {
        CarryEnd::Replaced | CarryEnd::Stale | CarryEnd::Lost(_) => None,
        CarryEnd::Closed | CarryEnd::Failed(_) | CarryEnd::Violation(_) | CarryEnd::Silent | CarryEnd::Unresumed => {
            let mut places = agent.places.borrow_mut();
            Some(places.ended(&held.dial, since.elapsed(), agent.now(), (agent.settings.chance)()))
        }
    };
    agent.tell(&Event::Disconnected { endpoint: &id, end: &end, pause });
}
