//! The built programs as a person starts them on one machine, and what they talk to.

mod backend;
mod binary;
mod hello;
mod manifest;
mod nats;
mod ports;
mod process;
mod relp;
mod terminal;

pub use backend::{Backend, Behaviour, UdpEcho};
pub use binary::{EARLIER_PROGRAMS, FRESH_PROGRAMS, PROGRAMS, binary, earlier};
pub use hello::client_hello;
pub use manifest::{Listener, forward};
pub use nats::{NatsAccount, NatsUser};
pub use ports::{free_port, free_range};
pub use process::{Event, Program};
pub use relp::{send_relp, serve_relp};
pub use terminal::Terminal;
