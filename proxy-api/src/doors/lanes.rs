//! When the handshakes of admitted connections begin: evenly, so that a burst of connections is no burst of handshakes.

use std::time::Duration;

use super::{Bucket, Rate};

/// Two lanes, each with half of the rate. Connections beyond the fair share of their source use the first lane only
/// while nobody waits there, so they delay others by one handshake.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lanes {
    first: Bucket,
    second: Bucket,
}

impl Lanes {
    /// Time until the handshake of a connection that was admitted now begins. Both lanes together begin no more
    /// handshakes than `all` has tokens.
    pub(super) fn turn(&mut self, all: Rate, is_fair: bool, now: Duration) -> Duration {
        let rate = all.half_of_each();
        let (first, second) = (self.first.wait(rate, now), self.second.wait(rate, now));
        let takes_first = if is_fair { first <= second } else { first.is_zero() };
        let (lane, wait) = if takes_first { (&mut self.first, first) } else { (&mut self.second, second) };
        lane.spend(rate, 1, now);
        wait
    }
}
