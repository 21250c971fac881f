//! The data plane of Portlane.
//!
//! ```text
//! Configuration ─▶ supervisor ─diff▶ Plan ─bind▶ sockets ─▶ workers ─▶ sessions (TCP) and flows (UDP)
//!                      ▲  resolver: DNS answers                └─▶ log, metrics
//!                      └──▶ Report {listener: Bound | Failed | Draining}
//! ```
//!
//! One control thread takes configurations, resolves names, binds sockets and reports. Workers move the bytes; each is
//! one thread with a single-threaded runtime. Workers share a listener's spec, targets and counters as atomics.
//! [`core`] is pure and opens no sockets; everything else is shell.

pub mod agents;
pub mod clock;
pub mod commands;
pub mod core;
pub mod deadline;
pub mod door;
#[cfg(feature = "durable")]
pub mod draining;
pub mod files;
pub mod first_answer;
#[cfg(test)]
mod fixtures;
pub mod follow;
pub mod handle;
mod holder;
pub mod http;
pub mod http_doors;
pub mod keeping;
#[cfg(feature = "durable")]
pub mod letters;
pub mod listen;
pub mod lives;
pub mod log;
mod memory;
#[cfg(feature = "durable")]
mod messages;
pub mod metrics;
pub mod net;
#[cfg(feature = "operator")]
pub mod operator;
mod persisted;
pub mod pipes;
pub mod probe;
pub mod process;
pub mod resolver;
pub mod room;
pub mod route;
pub mod settings;
pub mod shared;
pub mod signing;
pub mod supervisor;
pub mod sys;
pub mod tcp;
pub mod threads;
pub mod timings;
#[cfg(feature = "tunnels")]
pub mod tunnels;
pub mod udp;
pub mod waiters;
mod watchdog;
pub mod worker;
