//! Turns verdicts and the reports of proxies into the statuses of `PortForward`, `ForwardGateway` and
//! `ForwardAgent` objects.
//!
//! ```text
//! reports ──proxies──▶ acks ──data_plane──▶ sum per forward ──forward, gateway, agent──▶ status ──patch──▶ merge patch
//!                                                                                    └─events──▶ Events
//! ```

pub mod agent;
pub mod claims;
pub mod conditions;
pub mod data_plane;
pub mod events;
pub mod findings;
pub mod fleets;
pub mod forward;
pub mod gateway;
pub(crate) mod injected;
pub mod instances;
mod kept;
pub mod loads;
pub mod patch;
pub mod proxies;
pub mod rates;
pub mod rollout;
pub mod scaling;
pub mod versions;
