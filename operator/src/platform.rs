//! Infrastructure of all parts: leader election, certificates, servers, metrics.

pub(crate) mod doors;
pub mod http;
pub mod https;
pub mod lease;
pub mod metrics;
pub mod pki;
