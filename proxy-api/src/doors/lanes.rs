//! When handshakes of admitted connections begin: evenly, so that a burst of connections is no burst of handshakes.

use std::time::Duration;

use super::{Bucket, Rate};

/// Longest wait for the turn of a handshake. A client's timeout must be longer: a connection that its client gives up
/// has cost its turn, and the next attempt costs another.
pub const LONGEST_TURN: Duration = Duration::from_secs(4);
/// Longest wait of connections beyond the fair share of their source. They may arrive faster than the second lane is
/// served, and each waiting connection holds a place.
const LONGEST_GREEDY_TURN: Duration = Duration::from_secs(1);

/// Two lanes, each with half of the rate. Connections beyond the fair share of their source use the first lane only
/// while no connection waits there, so they delay others by one handshake.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lanes {
    first: Bucket,
    second: Bucket,
}

impl Lanes {
    /// Time until the handshake of a connection that was admitted now begins. Both lanes together begin no more
    /// handshakes than `all` has tokens. `None`: the connection would wait too long.
    pub(super) fn turn(&mut self, all: Rate, is_fair: bool, now: Duration) -> Option<Duration> {
        let rate = all.half_of_each();
        let (first, second) = (self.first.wait(rate, now), self.second.wait(rate, now));
        let takes_first = if is_fair { first <= second } else { first.is_zero() };
        let (lane, wait) = if takes_first { (&mut self.first, first) } else { (&mut self.second, second) };
        let longest = if is_fair { LONGEST_TURN } else { LONGEST_GREEDY_TURN };
        if wait > longest {
            return None;
        }
        lane.spend(rate, 1, now);
        Some(wait)
    }
}
