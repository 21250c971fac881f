//! Flows and datagrams.

pub mod batch;
pub mod flows;
pub mod hop_limit;
pub mod trains;
