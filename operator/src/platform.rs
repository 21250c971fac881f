//! Infrastructure of all parts: leader election, certificates, servers, metrics.

pub mod client;
pub mod http;
pub mod https;
pub mod lease;
pub mod metrics;
pub mod pki;
