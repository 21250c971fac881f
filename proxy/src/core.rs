//! The pure core: no sockets, clock or environment. Time and randomness are arguments.

pub mod backends;
pub mod changes;
pub mod control;
pub mod durable;
pub mod limits;
pub mod logging;
pub mod ports;
pub mod resolution;
pub mod sessions;
pub mod udp;
pub mod workers;
