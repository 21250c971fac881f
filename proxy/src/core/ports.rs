//! Ports and addresses of the host that other programs may use.

pub mod foreign_ports;
pub mod holder;
pub mod no_ports;
pub mod own_addresses;
