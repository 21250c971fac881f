//! The data plane of Portlane.
//!
//! ```text
//! Configuration ─▶ supervisor ─diff▶ Plan ─bind▶ sockets ─▶ workers ─▶ sessions (TCP) and flows (UDP)
//!                      ▲  resolver: DNS answers                └─▶ log, metrics
//!                      └──▶ Report {listener: Bound | Failed | Draining}
//! ```
//!
//! One control thread decides: it takes configurations, resolves names, binds sockets and reports. Workers, one thread
//! and one single-threaded runtime each, move bytes; they share a listener's spec, targets and counters as atomics.
//! [`core`] is pure and knows no socket; everything else is shell.

pub mod clock;
pub mod core;
pub mod files;
pub mod follow;
pub mod handle;
pub mod http;
pub mod log;
pub mod metrics;
pub mod net;
#[cfg(feature = "operator")]
pub mod operator;
pub mod probe;
mod process;
pub mod resolver;
pub mod route;
pub mod settings;
pub mod shared;
pub mod supervisor;
pub mod sys;
pub mod tcp;
pub mod threads;
pub mod udp;
pub mod worker;
