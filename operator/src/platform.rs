//! Infrastructure of all parts: client, leader election, certificates, servers, supervision, metrics.

pub mod client;
pub mod deadline;
pub mod doors;
pub mod ending;
pub mod http;
pub mod https;
pub mod lease;
pub mod listen;
pub mod liveness;
pub mod metrics;
pub mod pki;
pub mod serving;
pub mod tasks;
