//! Backends: their endpoints, the selection of one for a session, and their health.

pub mod absence;
pub mod address;
pub mod agent_refusal;
pub mod balance;
pub mod checks;
pub mod damped;
pub mod endpoint;
pub mod health;
pub mod instances;
pub mod race;
