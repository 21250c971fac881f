//! A log in a stream of a server: what is published again or given up, whose messages this process gives to the sink and
//! which they are, what fails, and when nothing is left. Its shell speaks with the server.

use std::time::Duration;

mod breaks;
mod drained;
mod failures;
mod holder;
mod long;
mod publication;
mod window;

pub use breaks::{Break, Breaks};
pub use drained::is_drained;
pub use failures::{Failures, Way};
pub use holder::{Answer, Patience, consumer, process};
pub use long::LongMessages;
pub use publication::{BATCH, Outcome, Publication, Share};
pub use window::{Given, HELD, Poison, Window};

/// The pause after something failed.
pub const PAUSE: Duration = Duration::from_millis(100);
