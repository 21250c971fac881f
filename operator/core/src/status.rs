//! Turns verdicts and the reports of proxies into the statuses of `PortForward` and `ForwardGateway` objects.
//!
//! ```text
//! reports ──proxies──▶ acks ──data_plane──▶ sum per forward ──forward, gateway──▶ status ──patch──▶ merge patch
//!                                                                             └─events──▶ Events
//! ```

pub mod conditions;
pub mod data_plane;
pub mod events;
pub mod findings;
pub mod fleets;
pub mod forward;
pub mod gateway;
pub(crate) mod injected;
pub mod loads;
pub mod patch;
pub mod proxies;
pub mod rates;
pub mod rollout;
pub mod scaling;
pub mod versions;
