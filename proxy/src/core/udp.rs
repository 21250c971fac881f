//! Flows and datagrams.

pub mod batch;
pub mod flows;
pub mod trains;
