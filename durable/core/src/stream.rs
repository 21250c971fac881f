//! The decisions for a log in a stream of a server: which messages are published again or given up, which process has
//! the consumer, which messages it holds for the sink, which failures are reported, and when a process is drained. The
//! shell talks to the server.

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
