//! Tunnels between agents and proxies, on sockets and files. [`tunnel_core`] decides.
//!
//! A [`Tunnel`] is one session on one thread. [`Tunnel::run`] drives its timers, [`Tunnel::carry`] drives one
//! connection after another, and [`Tunnel::open`] and [`Tunnel::accept`] return a [`Stream`] or a [`Flow`] at either
//! end. [`relay()`] joins a stream and a socket. [`agent`] dials; [`endpoint`] is dialled, and hands over connections
//! that are meant for another endpoint. [`secure`] puts TLS between them, and [`enrol`] gives agents their
//! certificates. [`local`] stores what a server without a cluster needs, and [`remote`] asks the operator of a cluster.

pub mod agent;
mod ahead;
mod carry;
mod clock;
pub mod endpoint;
pub mod enrol;
pub mod handshake;
pub mod identity;
pub mod local;
mod options;
pub mod proxy_connect;
mod reach;
mod relay;
pub mod remote;
pub mod secure;
mod signer;
mod tunnel;

pub use self::carry::CarryEnd;
pub use self::reach::ReachError;
pub use self::relay::{RelayEnd, Relayed, Socket, relay};
pub use self::tunnel::{Flow, Hint, Incoming, OpenError, Readable, Stream, Tunnel};
