//! TCP sessions: connect, relay, end.

pub mod connect;
pub mod direction;
pub mod relay;
pub mod session;
