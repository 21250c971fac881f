//! The pure core: no sockets, no clock, no environment. Time and chance are arguments.

pub mod balance;
pub mod diff;
pub mod end;
pub mod endpoint;
pub mod flows;
pub mod load;
