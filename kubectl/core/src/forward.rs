//! `kubectl portlane forward` and `run`: the decisions about connections from this machine to ports of pods.
//!
//! ```text
//! manifests ──▶ backends        the Services that `run` attaches
//! words ──▶ target, mapping     what is forwarded, and from which local port
//! objects ──▶ endpoints         the pods behind the target, and the port in each
//! local ports ──▶ open_port     what is printed once they are open
//! endpoints, failures ──▶ pool  the pod of a connection, when to retry, when to give up
//! ends ──▶ tally                counts, and what the log says about them
//! ```
//!
//! Times are durations since the start of the program.

pub mod backends;
pub mod endpoints;
pub mod failure;
pub mod listener;
pub mod mapping;
pub mod open_port;
pub mod pool;
pub mod replay;
pub mod tally;
pub mod target;
