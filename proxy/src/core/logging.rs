//! Logging of events that repeat.

pub mod farewell;
pub mod fault;
pub mod logged_refusals;
pub mod losses;
pub mod pace;
pub mod unrouted;
pub mod waits;
