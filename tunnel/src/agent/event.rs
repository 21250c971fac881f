//! The events that an agent reports while it runs.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tunnel_core::identity::{Dial, EndpointId};
use tunnel_core::join::Address;
use tunnel_core::{Loss, Open, Refusal};

use crate::{CarryEnd, Hint, Relayed};

/// Receives every event at once, on the thread of the agent. It must not block.
pub type Observer = Rc<dyn Fn(&Event<'_>)>;

/// Something that happened to an agent.
#[derive(Debug)]
pub enum Event<'a> {
    /// A connection now carries the session with an endpoint.
    Connected {
        /// The endpoint.
        endpoint: &'a EndpointId,
        /// The address that was dialled.
        address: &'a Address,
        /// Whether the session resumes, with its streams.
        resumed: bool,
    },
    /// An attempt to connect has failed.
    NotConnected {
        /// The endpoint that was dialled.
        dial: &'a Dial,
        /// The kind of failure, one word.
        kind: &'static str,
        /// The failure and the remedy.
        error: &'a str,
        /// The time until the next attempt.
        pause: Duration,
    },
    /// A connection has ended.
    Disconnected {
        /// The endpoint.
        endpoint: &'a EndpointId,
        /// Why the connection has ended.
        end: &'a CarryEnd,
        /// The time until the next attempt, if the connection was lost; absent if no attempt is needed.
        pause: Option<Duration>,
    },
    /// Another connection to an endpoint is needed beside the present one.
    Needed {
        /// The endpoint.
        endpoint: &'a EndpointId,
        /// Why another connection is needed.
        hint: Hint,
    },
    /// A session has ended, and its streams with it.
    Ended {
        /// The endpoint.
        endpoint: &'a EndpointId,
        /// Why the session has ended.
        loss: Loss,
    },
    /// A target is connected.
    Opened(&'a Open),
    /// Bytes of a stream were relayed, in one direction or the other.
    Moved {
        /// Bytes sent to the target.
        to_target: u64,
        /// Bytes received from the target.
        from_target: u64,
    },
    /// A stream or a flow has ended.
    Closed {
        /// The request.
        open: &'a Open,
        /// The bytes that the stream has carried. Absent for a flow, and for a stream whose session has ended.
        relayed: Option<Relayed>,
    },
    /// The agent did not connect to a target.
    Refused {
        /// The request.
        open: &'a Open,
        /// The refusal that the server receives.
        refusal: &'a Refusal,
    },
    /// Datagrams of flows were dropped.
    Dropped {
        /// Why the datagrams were dropped.
        reason: Drops,
        /// How many datagrams were dropped.
        count: u64,
    },
    /// The agent stops: it takes no new streams.
    Draining,
    /// The time to drain is over, and this many streams are reset.
    Cut(usize),
}

/// Why datagrams were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drops {
    /// Too many datagrams waited for the connection to the endpoint or for the flow, or they waited for too long, or
    /// the flow was then refused.
    Waited,
    /// The send buffer of the socket to the target is full.
    Full,
    /// The target, or the network on the way to it, refuses the datagrams.
    Refused,
}

impl Event<'_> {
    /// Sends the event to the subscriber of `tracing`.
    pub fn trace(&self) {
        match self {
            Self::Connected { endpoint, address, resumed } => {
                tracing::info!(%endpoint, %address, resumed, "connected");
            }
            Self::NotConnected { dial, error, pause, .. } => {
                let endpoint = place(dial);
                tracing::warn!(endpoint, error, ?pause, "cannot connect, will retry");
            }
            Self::Disconnected { endpoint, end, pause: Some(pause) } => {
                tracing::warn!(%endpoint, reason = %end, ?pause, "lost the connection, will reconnect");
            }
            Self::Disconnected { endpoint, end, pause: None } => {
                tracing::debug!(%endpoint, reason = %end, "a connection was closed");
            }
            Self::Needed { endpoint, hint } => tracing::info!(%endpoint, ?hint, "another connection is needed"),
            Self::Ended { endpoint, loss } => {
                tracing::warn!(%endpoint, reason = %loss, "the session has ended, so its streams are reset");
            }
            Self::Opened(open) => tracing::debug!(to = %open.target, source = ?open.source, "connected to a target"),
            Self::Moved { .. } => {}
            Self::Closed { open, relayed } => {
                tracing::debug!(to = %open.target, source = ?open.source, ?relayed, "a stream has ended");
            }
            Self::Refused { open, refusal } => {
                let (source, why): (Option<SocketAddr>, &str) = (open.source, &refusal.detail);
                tracing::warn!(to = %open.target, ?source, why, "did not connect to a target");
            }
            Self::Dropped { reason, count } => tracing::debug!(?reason, count, "datagrams were dropped"),
            Self::Draining => {
                tracing::info!("shutting down: the agent accepts no new streams, and open streams can finish");
            }
            Self::Cut(streams) => {
                tracing::warn!(streams, "streams did not finish in time, so they are reset");
            }
        }
    }
}

/// The name of the dialled endpoint.
pub fn place(dial: &Dial) -> &str {
    match dial {
        Dial::Any => "any",
        Dial::Endpoint(id) | Dial::Sidecar(id) => id.as_str(),
    }
}
