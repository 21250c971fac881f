//! The pure core: no sockets, no clock, no environment. Time and chance are arguments.

pub mod balance;
pub mod client_hello;
pub mod damped;
pub mod diff;
pub mod end;
pub mod endpoint;
pub mod flows;
pub mod limiter;
pub mod load;
pub mod proxy_header;
