//! The built programs as a person starts them on one machine, and what they talk to.

mod backend;
mod manifest;
mod ports;
mod process;
mod terminal;

pub use backend::{Backend, Behaviour, UdpEcho};
pub use manifest::{Listener, forward};
pub use ports::{free_port, free_range};
pub use process::{Event, Program, binary};
pub use terminal::Terminal;
