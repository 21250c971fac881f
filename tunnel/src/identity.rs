//! Certificates of agents and of the endpoints that they dial: issuers, storage, and verification by TLS.

pub mod agent;
pub mod authority;
mod certificate;
pub mod endpoint;
mod files;
pub mod joins;
pub mod ledger;
pub mod tls;

pub use files::FileError;
