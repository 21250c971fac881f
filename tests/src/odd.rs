//! A machine whose names, files and network go wrong as a test says (Linux, root).

mod dns;
mod machine;
mod recording_server;
mod records;

pub use dns::{Asked, Dns, Kind, Reply};
pub use machine::{DeadMount, Machine};
pub use recording_server::RecordingServer;
