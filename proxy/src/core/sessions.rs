//! Sessions: how they begin, how long they last, and why they end or drop datagrams.

pub mod client_hello;
pub mod dropped;
pub mod end;
pub mod proxy_header;
pub mod server_names;
pub mod session_ids;
pub mod timers;
