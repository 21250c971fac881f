//! The pure core: no sockets, clock or environment. Time and randomness are arguments.

pub mod balance;
pub mod capacity;
pub mod cgroup;
pub mod client_hello;
pub mod damped;
pub mod diff;
pub mod edits;
pub mod end;
pub mod endpoint;
pub mod flows;
pub mod foreign_ports;
pub mod heartbeat;
pub mod host;
pub mod lacking;
pub mod limiter;
pub mod load;
pub mod names;
pub mod own_addresses;
pub mod pace;
pub mod proxy_header;
pub mod share;
pub mod told;
