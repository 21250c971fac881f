//! What owns a log: what it counts, and what it tells people.

mod event;
mod figures;

pub use event::{StoreEvent, StoreEvents};
pub use figures::{Drops, Figures};
