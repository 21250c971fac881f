//! TCP sessions: connect, relay, end.

pub mod admission;
pub mod connect;
pub mod dial;
pub mod direction;
pub mod few;
pub mod greeting;
pub mod live;
pub mod race;
pub mod relay;
pub mod session;
pub mod throttle;
pub mod unrouted;
