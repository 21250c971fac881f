//! A log in a stream of a server: whose messages this process gives to the sink, and which they are. Its shell speaks with
//! the server.

use std::time::Duration;

mod breaks;
mod failures;
mod holder;
mod publication;
mod window;

pub use breaks::{Break, Breaks};
pub use failures::{Failures, Way};
pub use holder::{Answer, Patience, consumer, process};
pub use publication::{BATCH, Outcome, Publication, Share};
pub use window::{Given, HELD, Window};

/// The pause after something failed.
pub const PAUSE: Duration = Duration::from_millis(100);
