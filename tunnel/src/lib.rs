//! Tunnels between agents and proxies, on sockets and files. [`tunnel_core`] decides.
//!
//! A [`Tunnel`] is one session on one thread. [`Tunnel::run`] keeps its time, [`Tunnel::carry`]
//! drives one connection after another, and [`Tunnel::open`] and [`Tunnel::accept`] give a
//! [`Stream`] or a [`Flow`] at either end.

mod carry;
mod tunnel;

pub use self::carry::CarryEnd;
pub use self::tunnel::{Flow, Hint, Incoming, OpenError, Readable, Stream, Tunnel};
