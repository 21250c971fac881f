//! What owns a log: the messages that it takes and gives, what it counts, and what it tells people.

mod event;
mod figures;
mod messages;

pub use event::{StoreEvent, StoreEvents};
pub use figures::{Drops, Figures};
pub use messages::{Incoming, Kept, ReadBound, ReadMessages};
