//! From verdicts and what proxies report to the statuses of our objects.
//!
//! ```text
//! reports ──proxies──▶ who runs what ──data_plane──▶ the sum for one forward ──forward, gateway──▶ status ──patch──▶ bytes
//!                                                                                            └─events──▶ Events
//! ```

pub mod conditions;
pub mod data_plane;
pub mod events;
pub mod fleets;
pub mod forward;
pub mod gateway;
pub(crate) mod injected;
pub mod loads;
pub mod patch;
pub mod proxies;
pub mod scaling;
