//! Durable listeners: how their logs are kept, and how their messages are delivered.

pub mod arrivals;
pub mod deliveries;
pub mod delivery;
pub mod drained;
pub mod draining;
pub mod gone;
pub mod intake_ends;
pub mod lag;
#[cfg(feature = "durable")]
pub mod log_files;
pub mod log_room;
pub mod lost_stream;
pub mod reopening;
pub mod sent;
