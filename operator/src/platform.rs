//! Infrastructure of all parts: leader election, certificates, servers, metrics.

pub mod http;
pub mod https;
pub mod lease;
pub mod listen;
pub mod metrics;
pub mod pki;
